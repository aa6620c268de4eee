"""What a standing stream weighs on which nothing is sent, and what it does meanwhile."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from ..runtime.edge.sse import KEEP_ALIVE
from .asgi import Refused
from .event_stream import EventStream, get_request
from .fleet import described_nodes
from .host_process import HostProcess, host_process
from .http_client import open_session
from .measure import Effort, Progress
from .report import Comparison, Scenario, Series, Target
from .stream_host import BARE, SDK, UNDERSTUDY

__all__ = ["idle_streams"]

BEFORE, STREAMS = 200, 10_000
"""Opened before the first look, so that caches are full and code is loaded; and measured."""
AT_REST = 10.0
"""Seconds that the processor time at rest is counted for, where there are no keep-alives."""
AT_ONCE = 5
"""Opened side by side: few, so that they leave no peak in memory."""
WEIGHT_TARGET = Target("at most", 12 * 1024)
NEVER = 86_400.0

SIDES = {BARE: "bare ASGI app that waits", UNDERSTUDY: "understudy", SDK: "SDK"}


class _Found(NamedTuple):
    session: float
    """Bytes of one session without a stream."""
    stream: float
    """Bytes that its standing stream adds, with the server's connection."""
    cpu: float
    """Seconds of processor time per second, afterwards."""
    comments: float
    """Keep-alives per second, meanwhile."""


async def idle_streams(http: str, effort: Effort, progress: Progress, *, full: bool) -> list[Scenario]:
    """10,000 standing streams of as many sessions on one node, in one round: these figures hardly move.

    `full`: the SDK too, and understudy without keep-alives.

    Raises:
        Refused: A process may not have so many connections.
    """
    before, streams = (5, 20) if effort.quick else (BEFORE, STREAMS)
    _require_files(before + streams + 200)
    sides = [BARE, UNDERSTUDY, *([SDK] if full else [])]
    found: dict[str, _Found] = {}
    for side in sides:
        progress(f"{http}: {streams:,} idle streams, {SIDES[side]}")
        rest = KEEP_ALIVE if full and side != BARE else AT_REST if full else 0.2
        found[side] = await _weigh(side, http, before, streams, 0.2 if effort.quick else rest)
    title = f"{described_nodes(http)}: {streams:,} idle standing streams"
    scenarios = [_weights(title, sides, found)]
    if full:
        progress(f"{http}: {streams:,} idle streams without keep-alives")
        rest = 0.2 if effort.quick else AT_REST
        silent = await _weigh(UNDERSTUDY, http, before, streams, rest, keep_alive=NEVER)
        scenarios.append(_at_rest(title, sides, found, silent))
    return scenarios


def _weights(title: str, sides: Sequence[str], found: dict[str, _Found]) -> Scenario:
    floor = found[BARE].stream
    unit = "bytes/stream"
    hosts = [side for side in sides if side != BARE]
    series = [Series(f"{SIDES[side]}, with the server's connection", unit, (found[side].stream,)) for side in sides]
    series += [Series(f"{SIDES[side]}, its session", "bytes/session", (found[side].session,)) for side in hosts]
    comparisons = [
        Comparison(
            f"{SIDES[side]}, beyond the server's connection",
            unit,
            (found[side].stream - floor,),
            WEIGHT_TARGET if side == UNDERSTUDY else None,
        )
        for side in hosts
    ]
    return Scenario(f"{title}, resident", tuple(series), tuple(comparisons))


def _at_rest(title: str, sides: Sequence[str], found: dict[str, _Found], silent: _Found) -> Scenario:
    rows = [(SIDES[side], found[side]) for side in sides] + [("understudy without keep-alives", silent)]
    used = [Series(name, "ms/s", (it.cpu * 1000,)) for name, it in rows]
    sent = [Series(f"{name}, keep-alives", "1/s", (it.comments,)) for name, it in rows if it.comments]
    beyond = Comparison(
        "understudy without keep-alives, beyond the bare app", "ms/s", ((silent.cpu - found[BARE].cpu) * 1000,)
    )
    return Scenario(f"{title}, processor time at rest", (*used, *sent), (beyond,))


async def _weigh(
    side: str, http: str, before: int, streams: int, seconds: float, *, keep_alive: float | None = None
) -> _Found:
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(host_process(side, http, keep_alive=keep_alive))
        await stack.enter_async_context(_standing(side, host, await _sessions(side, host, before)))
        empty = await host.resident()
        sessions = await _sessions(side, host, streams)
        opened = await host.resident()
        standing = await stack.enter_async_context(_standing(side, host, sessions))
        full = await host.resident()
        comments = -sum(each.comments for each in standing)
        used = -await host.cpu()
        await asyncio.sleep(seconds)
        used += await host.cpu()
        comments += sum(each.comments for each in standing)
        if any(each.lost for each in standing):
            raise Refused(f"{SIDES[side]} closed a standing stream on which nothing was sent")
    return _Found((opened - empty) / streams, (full - opened) / streams, used / seconds, comments / seconds)


async def _sessions(side: str, host: HostProcess, count: int) -> list[str]:
    """The ids of so many new sessions; the bare app has none."""
    if side == BARE:
        return ["none"] * count
    ids: list[str] = []

    async def some(count: int) -> None:
        connection = await host.connect()
        try:
            ids.extend([(await open_session(connection)).session_id for _ in range(count)])
        finally:
            connection.close()

    async with asyncio.TaskGroup() as tasks:
        for start in range(AT_ONCE):
            tasks.create_task(some(len(range(start, count, AT_ONCE))))
    return ids


@asynccontextmanager
async def _standing(side: str, host: HostProcess, sessions: Sequence[str]) -> AsyncGenerator[list[EventStream]]:
    """A standing stream of each of these sessions."""
    streams: list[EventStream] = []

    async def some(ids: Sequence[str]) -> None:
        for session_id in ids:
            stream = await host.stream()
            streams.append(stream)
            stream.send(get_request(session_id))
            # The SDK sends nothing but the head.
            await stream.until(b"\r\n\r\n" if side == SDK else b"\ndata: ")
            stream.only_listen()

    try:
        async with asyncio.TaskGroup() as tasks:
            for start in range(AT_ONCE):
                tasks.create_task(some(sessions[start::AT_ONCE]))
        yield streams
    finally:
        for stream in streams:
            stream.close()


def _require_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Refused(
            f"bench streams needs {needed:,} open files in each process, and may have {hard:,}: see ulimit -n"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
