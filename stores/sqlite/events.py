"""`SQLiteEventLog`: streams in the file of a `SQLiteStore`, for one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..address import Address
from ..arguments import checked_limit
from ..event_log import EventLogBounds, LoggedStream
from ..event_rules import checked_after, checked_append, checked_stream
from ..group_commit import GroupCommit
from . import event_statements

__all__ = ["SQLiteEventLog"]

_LARGEST_APPEND = 256 * 2**20
"""Bytes. SQLite takes 1 GB at most in one value, and a transaction of more than this keeps all others waiting."""

_STREAMS_PER_TRANSACTION = 64
"""Streams removed in one: with a stream of 8 MiB each, that is what a disk can do in a second or so."""


class SQLiteEventLog:
    """An `EventLog` in the tables `streams` and `events` of a store's file, as durable as its records.

    Appends share the store's commits. A cancelled append may still take effect. At `max_total_bytes` the streams that
    nobody has appended to for longest go at once. The space of what went is used again; the file does not shrink.

    Made by `SQLiteStore`.
    """

    def __init__(
        self, clock: Callable[[], float], bounds: EventLogBounds, writer: GroupCommit, reader: GroupCommit
    ) -> None:
        self._clock = clock
        self._bounds = bounds
        self._writer = writer
        self._reader = reader
        self._appends = 0
        self._appended_events = 0
        self._trimmed_events = 0
        self._evicted_streams = 0

    @property
    def bounds(self) -> EventLogBounds:
        """See `EventLog.bounds`."""
        return self._bounds

    async def append(
        self,
        address: Address,
        stream: str,
        first: int,
        events: Sequence[bytes],
        *,
        head: bytes,
        writer: str,
        ends: bool = False,
    ) -> None:
        """See `EventLog.append`."""
        bounds = self._bounds
        checked_append(stream, first, events, head, writer, most=min(bounds.max_total_bytes, _LARGEST_APPEND))
        done = await self._writer.submit(
            event_statements.append,
            address,
            stream,
            first,
            tuple(events),  # the caller's list may grow before the thread comes to it
            head,
            writer,
            ends,
            self._clock(),
            bounds,
        )
        if done is not None:
            appended, trimmed, evicted = done
            self._appends += 1
            self._appended_events += appended
            self._trimmed_events += trimmed
            self._evicted_streams += evicted

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`."""
        checked_after(after)
        since = self._clock() - self._bounds.max_age
        return await self._reader.submit(event_statements.read, address, checked_stream(stream), after, since)

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """See `EventLog.drop`."""
        for _, stream in streams:
            checked_stream(stream)
        for start in range(0, len(streams), _STREAMS_PER_TRANSACTION):
            some = tuple(streams[start : start + _STREAMS_PER_TRANSACTION])
            await self._writer.submit(event_statements.drop, some)

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`."""
        # In the writer too, so that it sees what was appended before it.
        names = await self._writer.submit(event_statements.names, address)
        await self.drop([(address, name) for name in names])

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`. Looks only at the streams that go, a few in each transaction."""
        checked_limit(limit, most=None)
        gone = 0
        while gone < limit:
            some = min(limit - gone, _STREAMS_PER_TRANSACTION)
            since = self._clock() - self._bounds.max_age
            went = await self._writer.submit(event_statements.expire, some, since, self._bounds.max_total_bytes)
            gone += went
            if went < some:
                break
        return gone

    def stats(self) -> dict[str, float]:
        """Appends and events so far, events that gave way to newer ones, and streams that did; of this process."""
        return {
            "appends_total": self._appends,
            "appended_events_total": self._appended_events,
            "trimmed_events_total": self._trimmed_events,
            "evicted_streams_total": self._evicted_streams,
        }
