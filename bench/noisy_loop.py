"""What a noisy tenant costs another within a node: processor time, in one process, without sockets."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

from starlette.requests import Request

from ..actors.session import TenantContext
from ..runtime import Runtime
from .asgi import ASGIApp, Caller
from .clients import HANDSHAKE_VERSION, HEADERS, INITIALIZE, INITIALIZED, PreparedCall, checked
from .measure import Effort, Progress
from .quantiles import Latencies, scenario
from .report import Scenario
from .servers import ARGUMENTS, TOOL, ten_tools
from .sides import HOST

__all__ = ["QUIET", "SIDES", "by_name", "noisy_loop"]

QUIET = {"authorization": "quiet"}
NOISY = {"authorization": "noisy"}
SIDES: tuple[tuple[str, Literal["equal", "off"]], ...] = (("first come, first served", "off"), ("fair queues", "equal"))
CROWDS = (50, 500)
"""Calls of the noisy tenant in flight; the quiet one has one at a time."""
PAUSE = 0.002
"""Seconds between two calls of the quiet tenant."""
CALLS = 200
"""Calls of the quiet tenant in a slice, ..."""
SECONDS = 1.0
"""... if that takes no longer than so much processor time."""
SLICES = 5
QUICK_CROWD = 10


def by_name(request: Request) -> TenantContext:
    """A resolver for tenants that are who they say."""
    name = request.headers["authorization"]
    return TenantContext(name, name)


class _Side:
    """One node, and the callers of both tenants."""

    def __init__(self, name: str, quiet: Caller, crowd: list[Caller]) -> None:
        self.latencies = Latencies(name)
        self._quiet = quiet
        self._crowd = crowd
        self._call = PreparedCall(TOOL, ARGUMENTS)
        self._noisy = True
        self._answered = 0

    async def slice(self, calls: int) -> None:
        """A turn alone, and one beside the crowd."""
        gc.collect()
        self.latencies.alone[-1] += await self._calls(calls)
        self._noisy = True
        async with asyncio.TaskGroup() as tasks:
            for caller in self._crowd:
                tasks.create_task(self._noise(caller))
            # That all of them begin at the same moment is this benchmark's doing.
            settled = self._answered + len(self._crowd)
            while self._answered < settled:  # noqa: ASYNC110 - nothing needless in what is measured
                await asyncio.sleep(PAUSE)
            before, began = self._answered, time.process_time()
            self.latencies.beside[-1] += await self._calls(calls)
            self.latencies.noisy_calls[-1].append((self._answered - before) / (time.process_time() - began))
            self._noisy = False

    async def _noise(self, caller: Caller) -> None:
        while self._noisy:
            checked(await caller.send(self._call.body()))
            self._answered += 1
            # As over a socket, the next call comes with the next look at what has arrived.
            await asyncio.sleep(0)

    async def _calls(self, count: int) -> list[float]:
        took: list[float] = []
        ends = time.process_time() + SECONDS
        while len(took) < count and (not took or time.process_time() < ends):
            await asyncio.sleep(PAUSE)
            began = time.process_time()
            await asyncio.sleep(0)
            checked(await self._quiet.send(self._call.body()))
            took.append(time.process_time() - began)
        return took


async def noisy_loop(effort: Effort, progress: Progress) -> list[Scenario]:
    """Both nodes in this process, in turns.

    Processor time, because it does not tell how often somebody else had the processor meanwhile.
    """
    slices, calls = (1, 3) if effort.quick else (SLICES, CALLS)
    scenarios: list[Scenario] = []
    for crowd in (QUICK_CROWD,) if effort.quick else CROWDS:
        async with AsyncExitStack() as stack:
            sides = [await stack.enter_async_context(_side(name, fairness, crowd)) for name, fairness in SIDES]
            # As `understudy serve` does: otherwise each full collection walks all that start-up has made.
            gc.collect()
            gc.freeze()
            stack.callback(gc.unfreeze)
            for number in range(effort.rounds):
                progress(f"bare ASGI, {crowd} noisy calls in flight: round {number + 1}/{effort.rounds}")
                for side in sides:
                    side.latencies.begin_round()
                for cut in range(slices):
                    for place in range(len(sides)):
                        await sides[(place + number + cut) % len(sides)].slice(calls)
        title = f"bare ASGI, processor time: one call at a time beside {crowd} in flight of another tenant"
        scenarios.append(scenario(title, [side.latencies for side in sides]))
    return scenarios


@asynccontextmanager
async def _side(name: str, fairness: Literal["equal", "off"], crowd: int) -> AsyncGenerator[_Side]:
    server = ten_tools(sessions=True)
    runtime = Runtime(server, allowed_hosts=[HOST], tenants=by_name, fairness=fairness)
    async with runtime:
        quiet = await _open(runtime.app, QUIET)
        yield _Side(name, quiet, [await _open(runtime.app, NOISY) for _ in range(crowd)])


async def _open(app: ASGIApp, credential: dict[str, str]) -> Caller:
    headers = {**HEADERS, **credential}
    opened = await Caller(app, headers).send(INITIALIZE)
    session_id = opened.header(b"mcp-session-id")
    assert session_id is not None, opened
    caller = Caller(app, {**headers, "mcp-session-id": session_id, "mcp-protocol-version": HANDSHAKE_VERSION})
    await caller.send(INITIALIZED)
    return caller
