"""Events a second to many streams, each that of a call whose tool tells of its progress."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .asgi import Refused
from .clients import HandshakeClient, PreparedCall
from .fleet import described_nodes
from .host_process import HostProcess, host_process
from .http_client import HttpConnection, RemoteSession, open_session
from .measure import Effort, Progress, Side, in_flight, interleave
from .report import Scenario, Series, Target, ratio
from .stream_host import SDK, UNDERSTUDY, open_side
from .talkative import TELL, Pace, tell_arguments

__all__ = ["events_over_http", "events_without_http", "require_all"]

STREAMS = 100
EVENTS = 200
"""Of each call, and so of each stream."""
PROGRESS = b"notifications/progress"

OURS, DURABLE, THEIRS = "understudy, memory", "understudy, SQLite", "SDK, in-memory event store"
NAMES = {OURS: UNDERSTUDY, DURABLE: UNDERSTUDY, THEIRS: SDK}
RATE_TARGET = Target("at least", 3.0)


@dataclass(slots=True)
class _Contender:
    name: str
    calls: Sequence[Callable[[], Awaitable[object]]]
    """One for each stream."""
    cpu: Callable[[], Awaitable[float]]
    """Seconds of processor time that its process has used."""
    rest: Callable[[], Awaitable[None]] | None = None


async def events_without_http(pace: Pace, effort: Effort, progress: Progress) -> Scenario:
    """All sides in this process, as bare ASGI apps. Processor time includes the client's, the same for all."""
    streams, events = _size(effort)
    async with AsyncExitStack() as stack:
        stores = _stores(stack)
        contenders: list[_Contender] = []
        for name, side in NAMES.items():
            app = await stack.enter_async_context(open_side(side, stores[name]))
            call = _call(events, pace)
            clients = [await HandshakeClient.open(app) for _ in range(streams)]
            calls = [partial(_bare_call, client, call, events) for client in clients]
            contenders.append(_Contender(name, calls, _own_cpu))
        return await _measure(f"bare ASGI: {_title(streams, events, pace)}", contenders, events, effort, progress)


async def events_over_http(http: str, pace: Pace, effort: Effort, progress: Progress) -> Scenario:
    """Each side in a process of its own, behind an HTTP server; the client in this one."""
    streams, events = _size(effort)
    async with AsyncExitStack() as stack:
        stores = _stores(stack)
        contenders: list[_Contender] = []
        for name, side in NAMES.items():
            host = await stack.enter_async_context(host_process(side, http, store=stores[name]))
            call = _call(events, pace)
            calls = [partial(_http_call, *await _visitor(host, stack), call, events) for _ in range(streams)]
            contenders.append(_Contender(name, calls, host.cpu, host.collect))
        title = f"{described_nodes(http)}: {_title(streams, events, pace)}"
        return await _measure(title, contenders, events, effort, progress)


async def _measure(
    title: str, contenders: Sequence[_Contender], events: int, effort: Effort, progress: Progress
) -> Scenario:
    # A slice is at least one call on every stream. One that is long beside that hides how it begins and ends.
    long = effort if effort.quick else replace(effort, slices=1, slice_seconds=1.0)
    meters = [_Meter(in_flight(it.calls), it.cpu, events) for it in contenders]
    sides = [
        Side(it.name, meter.run, at_once=len(it.calls), unit="events/s", rest=it.rest)
        for it, meter in zip(contenders, meters, strict=True)
    ]
    seconds = await interleave(sides, long, lambda said: progress(f"{title}, {said}"))
    rates = [
        Series(side.name, side.unit, tuple(events / each for each in figures))
        for side, figures in zip(sides, seconds, strict=True)
    ]
    used = [
        Series(f"processor time, {side.name}", "us/event", tuple(each * 1e6 for each in meter.per_event(long)))
        for side, meter in zip(sides, meters, strict=True)
    ]
    (ours, durable, theirs), (our_cpu, durable_cpu, their_cpu) = rates, used
    comparisons = (
        ratio(f"{OURS} / SDK", ours, theirs, RATE_TARGET),
        ratio(f"{DURABLE} / SDK", durable, theirs),
        ratio(f"processor time, SDK / {OURS}", their_cpu, our_cpu),
        ratio(f"processor time, SDK / {DURABLE}", their_cpu, durable_cpu),
    )
    return Scenario(title, (*rates, *used), comparisons)


class _Meter:
    """Notes the processor time of an event in each slice. Its `run` is the `Side.run`."""

    def __init__(self, run: Callable[[int], Awaitable[None]], cpu: Callable[[], Awaitable[float]], events: int) -> None:
        self._run = run
        self._cpu = cpu
        self._events = events
        self._slices: list[float] = []

    async def run(self, calls: int) -> None:
        before = await self._cpu()
        await self._run(calls)
        self._slices.append((await self._cpu() - before) / (calls * self._events))

    def per_event(self, effort: Effort) -> tuple[float, ...]:
        """Seconds, in each round of an `interleave` that is over; warming up is left out."""
        measured = self._slices[-effort.rounds * effort.slices :]
        rounds = [measured[at : at + effort.slices] for at in range(0, len(measured), effort.slices)]
        return tuple(sum(each) / len(each) for each in rounds)


def _size(effort: Effort) -> tuple[int, int]:
    return (2, 5) if effort.quick else (STREAMS, EVENTS)


def _title(streams: int, events: int, pace: Pace) -> str:
    return f"{streams} streams, {events} events each, {pace}"


def _stores(stack: AsyncExitStack) -> dict[str, str]:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-bench-"))
    return dict.fromkeys(NAMES, "memory://") | {DURABLE: f"sqlite:///{Path(folder) / 'bench.db'}"}


def _call(events: int, pace: Pace) -> PreparedCall:
    return PreparedCall(TELL, tell_arguments(events, pace), meta={"progressToken": 1})


async def _visitor(host: HostProcess, stack: AsyncExitStack) -> tuple[RemoteSession, HttpConnection]:
    connection = await host.connect()
    stack.callback(connection.close)
    return await open_session(connection), connection


async def _http_call(session: RemoteSession, connection: HttpConnection, call: PreparedCall, events: int) -> None:
    require_all((await session.call(connection, call)).body, events)


async def _bare_call(client: HandshakeClient, call: PreparedCall, events: int) -> None:
    require_all((await client.call(call)).body, events)


def require_all(body: bytes, events: int) -> None:
    """
    Raises:
        Refused: The stream does not hold exactly `events` progress notifications.
    """
    came = body.count(PROGRESS)
    if came != events:
        raise Refused(f"a stream had {came} of its {events} events")


async def _own_cpu() -> float:
    return time.process_time()
