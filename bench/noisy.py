"""`understudy bench noisy`: what a tenant at 50 times its share does to another's p99, with and without fair queues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from .clients import PreparedCall
from .fleet import described_nodes
from .host_process import HostProcess, child_process, host_process
from .http_client import HttpConnection, RemoteSession, open_session
from .measure import Effort, Progress
from .noise import TIMES
from .noisy_http import noisy_http
from .noisy_loop import QUIET, SIDES, noisy_loop
from .quantiles import Latencies, scenario
from .report import Report, Scenario
from .servers import ARGUMENTS, TOOL
from .stream_host import FAIR, UNFAIR

__all__ = ["bench_noisy"]

HTTP = "uvicorn"
"""It spends least on a request before the app has it: what is left is what the app can be fair with."""
RATE = 50.0
"""Calls a second of the quiet tenant, one at a time: its share."""
SLICE = 2.0
"""Seconds of each turn."""
SLICES = 5
QUICK_CONNECTIONS = 10
KINDS = {"equal": FAIR, "off": UNFAIR}


@dataclass(frozen=True, slots=True)
class _Noise:
    name: str
    connections: int
    rate: float | None
    """Calls a second; None: one after the other on each connection."""


NOISES = (
    _Noise(f"{TIMES} times its connections", TIMES, None),
    _Noise(f"{TIMES} times its calls, over up to 500 connections", 500, TIMES * RATE),
)


async def bench_noisy(effort: Effort, progress: Progress, *, http: bool = False) -> Report:
    """First within one process, then over real HTTP, where each node and each noisy tenant has a process of its own.
    `http`: instead of all that over real HTTP in one process, in the node's processor time.

    Raises:
        Refused: A node does not start, or a call of the quiet tenant failed.
    """
    if http:
        return Report("noisy --http", tuple(await noisy_http(effort, progress)), quick=effort.quick)
    scenarios = await noisy_loop(effort, progress)
    async with AsyncExitStack() as nodes:
        hosts = [await nodes.enter_async_context(host_process(KINDS[fairness], HTTP)) for _, fairness in SIDES]
        for noise in NOISES:
            async with AsyncExitStack() as stack:
                sides = [
                    await stack.enter_async_context(_side(name, host, noise, quick=effort.quick))
                    for host, (name, _) in zip(hosts, SIDES, strict=True)
                ]
                for number in range(effort.rounds):
                    progress(f"{noise.name}: round {number + 1}/{effort.rounds}")
                    await _round(sides, effort, number)
            scenarios.append(_scenario(noise, sides))
    return Report("noisy", tuple(scenarios), quick=effort.quick)


class _Side:
    """One node, its quiet tenant and its noisy one."""

    def __init__(self, name: str, connection: HttpConnection, session: RemoteSession, noise: HostProcess) -> None:
        self.latencies = Latencies(name)
        self._connection = connection
        self._session = session
        self._noise = noise
        self._call = PreparedCall(TOOL, ARGUMENTS)

    async def slice(self, seconds: float) -> None:
        """A turn alone, and one beside the noisy tenant."""
        latencies, noise = self.latencies, self._noise
        latencies.alone[-1] += await self._calls(seconds)
        before = (await noise.ask("counts"))[0]
        await noise.ask("start")
        began = time.perf_counter()
        latencies.beside[-1] += await self._calls(seconds)
        answered = (await noise.ask("counts"))[0] - before
        latencies.noisy_calls[-1].append(answered / (time.perf_counter() - began))
        await noise.ask("stop")

    async def _calls(self, seconds: float) -> list[float]:
        """How long the calls of so many seconds took. One that comes late, because this process or the call before it
        was late, is timed from when it was sent.
        """
        clock = time.perf_counter
        took: list[float] = []
        began = due = clock()
        while due - began < seconds:
            await asyncio.sleep(max(0.0, due - clock()))
            sent = clock()
            await self._session.call(self._connection, self._call)
            took.append(clock() - sent)
            due = max(due, sent) + 1 / RATE
        return took


async def _round(sides: list[_Side], effort: Effort, number: int) -> None:
    slices, seconds = (1, 0.2) if effort.quick else (SLICES, SLICE)
    for side in sides:
        side.latencies.begin_round()
    for cut in range(slices):
        for place in range(len(sides)):
            await sides[(place + number + cut) % len(sides)].slice(seconds)


@asynccontextmanager
async def _side(name: str, host: HostProcess, noise: _Noise, *, quick: bool) -> AsyncGenerator[_Side]:
    options: dict[str, Any] = {"port": host.port, "rate": noise.rate, "tool": TOOL, "arguments": ARGUMENTS}
    options["connections"] = QUICK_CONNECTIONS if quick else noise.connections
    async with AsyncExitStack() as stack:
        noisy = await stack.enter_async_context(child_process("understudy.bench.noise", options))
        connection = await host.connect()
        stack.callback(connection.close)
        yield _Side(name, connection, await open_session(connection, QUIET), noisy)


def _scenario(noise: _Noise, sides: list[_Side]) -> Scenario:
    title = f"{described_nodes(HTTP)}: {RATE:.0f} calls a second beside a tenant of {noise.name}"
    return scenario(title, [side.latencies for side in sides])
