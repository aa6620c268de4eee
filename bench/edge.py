"""`understudy bench edge`: the SDK's HTTP end and understudy's, as ASGI apps, on the same server of ten tools."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from .asgi import ASGIApp, Refused
from .clients import HandshakeClient, ModernClient, PreparedCall
from .measure import Effort, Progress, Side, in_flight, interleave
from .report import Report, Scenario, Series, Target, ratio
from .servers import ARGUMENTS, INCREMENT, TOOL, ten_tools
from .sides import sdk_app, understudy_app

__all__ = ["bench_edge", "require_agreement"]

MANY = 50
SSE, JSON, OURS = "SDK, SSE (its default)", "SDK, JSON", "understudy"

CALLS = (Target("at least", 6), Target("at least", 2.5))
OPENED = (Target("at least", 3), Target("at least", 3))
MODERN = (Target("at least", 2), Target("at least", 1.4))
DURABLE = Target("at least", 0.5)


async def bench_edge(effort: Effort, progress: Progress) -> Report:
    """Measure all scenarios; `effort` says how long each."""
    scenarios: list[Scenario] = []
    async with AsyncExitStack() as stack:
        hosts = {
            SSE: await stack.enter_async_context(sdk_app(ten_tools(), json_response=False)),
            JSON: await stack.enter_async_context(sdk_app(ten_tools(), json_response=True)),
            OURS: await stack.enter_async_context(understudy_app(ten_tools())),
        }

        await require_agreement(hosts)

        async def beside_sdk(name: str, sides: Sequence[Side], targets: tuple[Target | None, Target | None]) -> None:
            seconds = await interleave(sides, effort, lambda said: progress(f"{name}, {said}"))
            sse, json, ours = series = rates(sides, seconds)
            versus = (
                ratio(f"{OURS} / {SSE}", ours, sse, targets[0]),
                ratio(f"{OURS} / {JSON}", ours, json, targets[1]),
            )
            scenarios.append(Scenario(name, series, versus))

        for sessions, at_once in ((1, 1), (MANY, MANY)):
            sides = [await _calls(name, app, sessions=sessions, at_once=at_once) for name, app in hosts.items()]
            await beside_sdk(f"handshake era, {at_once} in flight", sides, CALLS)
        sides = [await _calls(name, app, sessions=1, at_once=MANY) for name, app in hosts.items()]
        await beside_sdk(f"handshake era, {MANY} in flight on one session", sides, (None, None))
        await beside_sdk("handshake era, sessions opened", [_opening(*host) for host in hosts.items()], OPENED)
        for at_once in (1, MANY):
            sides = [_modern_calls(name, app, at_once) for name, app in hosts.items()]
            await beside_sdk(f"modern era, {at_once} in flight", sides, MODERN)
    scenarios.append(await _durable(effort, progress))
    return Report("edge", tuple(scenarios), effort.quick)


async def require_agreement(hosts: dict[str, ASGIApp]) -> None:
    """Call the measured tool once at every host, in both eras.

    Raises:
        Refused: Two hosts gave different replies, so they did not do the same work.
    """
    first: dict[str, str] = {}
    for name, app in hosts.items():
        handshake = (await (await HandshakeClient.open(app)).call(PreparedCall(TOOL, ARGUMENTS))).reply()
        modern = (await ModernClient(app, TOOL, ARGUMENTS).call()).reply()
        for era, reply in (("handshake", handshake), ("modern", modern)):
            said = json.dumps(reply, sort_keys=True)
            if said != first.setdefault(era, said):
                raise Refused(f"{name} answers {said} in the {era} era where others answer {first[era]}")


def rates(sides: Sequence[Side], seconds: Sequence[Sequence[float]]) -> tuple[Series, ...]:
    """Operations per second of each side."""
    return tuple(
        Series(side.name, side.unit, tuple(1 / each for each in figures))
        for side, figures in zip(sides, seconds, strict=True)
    )


async def _calls(name: str, app: ASGIApp, *, sessions: int, at_once: int) -> Side:
    """Calls of one tool, `at_once` in flight, spread over `sessions` sessions."""
    call = PreparedCall(TOOL, ARGUMENTS)
    clients = [await HandshakeClient.open(app) for _ in range(sessions)]
    workers = [partial(clients[number % sessions].call, call) for number in range(at_once)]
    return Side(name, in_flight(workers), at_once=at_once)


def _modern_calls(name: str, app: ASGIApp, at_once: int) -> Side:
    return Side(name, in_flight([ModernClient(app, TOOL, ARGUMENTS).call] * at_once), at_once=at_once)


def _opening(name: str, app: ASGIApp) -> Side:
    """Sessions opened one after the other; they are deleted between the slices, outside the measured time."""
    opened: list[HandshakeClient] = []

    async def open_one() -> None:
        opened.append(await HandshakeClient.open(app))

    async def delete_all() -> None:
        while opened:
            await opened.pop().close()

    return Side(name, in_flight([open_one]), unit="sessions/s", rest=delete_all)


async def _durable(effort: Effort, progress: Progress) -> Scenario:
    """What it costs that an answer waits for the disk: the same sessions counting, on SQLite and in memory."""
    name = f"durable state, {MANY} sessions incrementing"
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-bench-"))
        stores = {"memory://": "memory://", "sqlite://": f"sqlite:///{Path(folder) / 'bench.db'}"}
        sides: list[Side] = []
        for label, url in stores.items():
            app = await stack.enter_async_context(understudy_app(ten_tools(sessions=True), store=url))
            call = PreparedCall(INCREMENT, {})
            workers = [partial((await HandshakeClient.open(app)).call, call) for _ in range(MANY)]
            sides.append(Side(label, in_flight(workers), at_once=MANY))
        memory, sqlite = series = rates(
            sides, await interleave(sides, effort, lambda said: progress(f"{name}, {said}"))
        )
    return Scenario(name, series, (ratio("SQLite / memory", sqlite, memory, DURABLE),))
