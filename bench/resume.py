"""How long a client that comes back with `Last-Event-ID` waits until it has what it missed."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

from .asgi import Refused
from .clients import PreparedCall
from .event_stream import EventStream, get_request
from .fleet import HTTP, described_nodes, fleet
from .host_process import HOST, host_process
from .http_client import HttpConnection, RemoteSession, open_session
from .local_nats import local_nats
from .measure import Effort, Progress
from .report import Comparison, Scenario, Series, ratio
from .stream_host import SDK, UNDERSTUDY
from .talkative import TELL, TOLD, step, tell_arguments

__all__ = ["BrokenStream", "resume_all", "resume_times"]

EVENTS, SEEN = 1000, 500
"""Of a stream; and what its client had when it lost the connection."""
STREAMS = 20
"""In each round, one after the other: each in a session of its own."""
DEADLINE = 60.0

MEMORY, LOG, MOVED, THEIRS = "same node, from memory", "same node, started anew", "another node", "SDK, same process"


async def resume_times(effort: Effort, progress: Progress) -> Scenario:
    """Milliseconds from the GET to the response's arrival, after everything that came before it: the median stream."""
    figures: dict[str, list[float]] = {THEIRS: [], MEMORY: [], LOG: [], MOVED: []}
    for number in range(effort.rounds):
        for name, measure in _MEASURES.items():
            progress(f"resume, round {number + 1}/{effort.rounds}: {name}")
            figures[name].append(await measure(3 if effort.quick else STREAMS))
    series = {name: Series(name, "ms", tuple(found)) for name, found in figures.items()}
    title = f"{described_nodes(HTTP)}: {EVENTS - SEEN} of {EVENTS} events resumed"
    comparisons: tuple[Comparison, ...] = tuple(
        ratio(f"SDK / understudy, {name}", series[THEIRS], series[name]) for name in (MEMORY, LOG, MOVED)
    )
    return Scenario(title, tuple(series.values()), comparisons)


@dataclass(slots=True)
class BrokenStream:
    """A stream whose connection was lost."""

    session_id: str
    last_event_id: str


async def _same_process(side: str, streams: int) -> float:
    async with host_process(side, HTTP) as host:
        broken = await _break_streams(host.port, streams)
        return await resume_all(broken, lambda: host.port)


async def _started_anew(streams: int) -> float:
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as folder:
        store = f"sqlite:///{Path(folder) / 'bench.db'}"
        async with host_process(UNDERSTUDY, HTTP, store=store) as host:
            broken = await _break_streams(host.port, streams)
        async with host_process(UNDERSTUDY, HTTP, store=store) as host:
            return await resume_all(broken, lambda: host.port)


async def _at_another_node(streams: int) -> float:
    async with local_nats() as nats, fleet(nats.url, target="understudy.bench.talkative:server") as nodes:
        owner, *others = nodes.nodes
        broken = await _break_streams(owner.port, streams)
        owner.kill()
        ports = cycle(node.port for node in others)
        return await resume_all(broken, lambda: next(ports))


async def _break_streams(port: int, streams: int) -> list[BrokenStream]:
    """So many calls, each in a session of its own, whose clients leave in the middle; all of them are over.

    Raises:
        Refused: They do not end.
    """
    connection = await HttpConnection.open(HOST, port)
    try:
        # Ids that no two sessions share: the SDK's event store knows a stream by its request's id alone.
        call = PreparedCall(TELL, tell_arguments(EVENTS, "one by one"), meta={"progressToken": 1})
        broken = [await _break_one(port, await open_session(connection), call) for _ in range(streams)]
        watcher, deadline = await open_session(connection), time.monotonic() + DEADLINE
        while await _told(watcher, connection) < streams:
            if time.monotonic() > deadline:
                raise Refused(f"calls whose clients have left are not over within {DEADLINE:.0f} s")
            await asyncio.sleep(0.02)
        # The last events may still be on their way to the log.
        await asyncio.sleep(_SETTLE)
        return broken
    finally:
        connection.close()


_SETTLE = 0.3


async def _break_one(port: int, session: RemoteSession, call: PreparedCall) -> BrokenStream:
    stream = await EventStream.open(HOST, port)
    try:
        stream.send(session.request(call.body()))
        await stream.until(_step(SEEN))
        return BrokenStream(session.session_id, stream.id_of(_step(SEEN)))
    finally:
        stream.close()


async def _told(watcher: RemoteSession, connection: HttpConnection) -> int:
    answer = await watcher.call(connection, PreparedCall(TOLD, {}))
    return answer.reply()["result"]["structuredContent"]["result"]


async def resume_all(broken: Sequence[BrokenStream], port: Callable[[], int]) -> float:
    """Milliseconds of the median stream.

    Raises:
        Refused: One has not exactly the events that its client missed, or no response.
    """
    waited: list[float] = []
    for each in broken:
        stream = await EventStream.open(HOST, port())
        try:
            began = time.perf_counter()
            stream.send(get_request(each.session_id, last_event_id=each.last_event_id))
            await stream.until(b'"result"')
            waited.append((time.perf_counter() - began) * 1000)
            came = [stream.count(_step(number)) for number in range(1, EVENTS + 1)]
            if came != [0] * SEEN + [1] * (EVENTS - SEEN):
                raise Refused(f"a resumed stream brought {sum(came)} events where {EVENTS - SEEN} were missed")
        finally:
            stream.close()
    return median(waited)


def _step(number: int) -> bytes:
    return b'"' + step(number).encode() + b'"'


_MEASURES: dict[str, Callable[[int], Awaitable[float]]] = {
    THEIRS: partial(_same_process, SDK),
    MEMORY: partial(_same_process, UNDERSTUDY),
    LOG: _started_anew,
    MOVED: _at_another_node,
}
