"""`PostgresEventLog`: streams in the schema of a `PostgresStore`, for the nodes of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from ..address import Address
from ..arguments import checked_limit
from ..errors import StoreUnavailable
from ..event_log import STREAM_OVERHEAD, EventLogBounds, LoggedStream
from ..event_rules import Tail, checked_after, checked_append, checked_stream, missing_events
from .errors import PostgresUnavailable
from .event_calls import Append, Appended, EventCalls, Read, Trim
from .lanes import Lanes

__all__ = ["PostgresEventLog"]

_LARGEST_APPEND = 128 * 2**20
"""Bytes: more than this is on its way for longer than a caller would wait."""

_ATTEMPTS = 20
"""Times that an append is tried when others append to the same stream in the same moment."""

_STREAMS_AT_ONCE = 64
"""Streams removed in one statement: with 8 MiB each, that is what a disk can do in a second or so."""

_SLACK = 8
"""A stream is trimmed when it is an eighth beyond its bounds, and there is a look at all streams when a node has
appended a sixteenth of their bound: not with every append. Readers are shown no more than the bounds say."""


class PostgresEventLog:
    """An `EventLog` in the tables `streams` and `events` of a store's schema, as durable as its records.

    An append is a compare-and-set in one statement, and those that wait together share one. What is dropped or too old
    goes in two.

    Made by `PostgresStore`.
    """

    def __init__(self, lanes: Lanes, schema: str, clock: Callable[[], float], bounds: EventLogBounds) -> None:
        self._lanes = lanes
        self._clock = clock
        self._bounds = bounds
        self._calls = EventCalls(schema, bounds.max_age)
        self._bytes_since_look = 0
        self._appends = 0
        self._appended_events = 0
        self._trimmed_events = 0
        self._evicted_streams = 0
        self._conflicts = 0

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
        """See `EventLog.append`. One round trip, unless it is a repeat in part or races another."""
        bounds = self._bounds
        checked_append(stream, first, events, head, writer, most=min(bounds.max_total_bytes, _LARGEST_APPEND))
        events = tuple(events)
        for _ in range(_ATTEMPTS):
            now = self._clock()
            asked = Append(address, stream, first, events, head, writer, ends, now)
            size = sum(map(len, events))
            found: Appended = await self._lanes.submit(
                self._calls.append, asked, key=(address, stream), size=size + len(head)
            )
            if found.done:
                self._appends += 1
                self._appended_events += len(events)
                await self._keep_within_bounds(found, size + STREAM_OVERHEAD)
                return
            self._conflicts += 1
            if found.number is None:
                continue
            if found.appended <= now - bounds.max_age:
                await self._remove(await self._lanes.submit(self._calls.mark_one, (found.number, found.appended)))
                continue
            tail = Tail(found.last, found.writer, found.ended)
            there = missing_events(address, stream, tail, first, len(events), writer, ends=ends)
            if there is None:
                return
            first += there
            events = events[there:]
        raise PostgresUnavailable(f"stream {stream} of {address}: others append to it all the time; try again")

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`. One round trip."""
        bounds = self._bounds
        asked = Read(
            address,
            checked_stream(stream),
            self._clock() - bounds.max_age,
            checked_after(after),
            bounds.max_bytes,
            bounds.max_events,
        )
        row = await self._lanes.submit(self._calls.read, asked)
        if row is None:
            return None
        head, last, oldest, writer, ended, _, events, keep_from = row
        if keep_from is not None:
            oldest = max(oldest, keep_from)
        shown = tuple(events[max(oldest - (last + 1 - len(events)), 0) :])
        return LoggedStream(head, last + 1 - len(shown), shown, last, oldest, writer, ended)

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """See `EventLog.drop`. Two round trips for each 64."""
        for _, stream in streams:
            checked_stream(stream)
        for start in range(0, len(streams), _STREAMS_AT_ONCE):
            some = tuple(streams[start : start + _STREAMS_AT_ONCE])
            await self._remove(await self._lanes.submit(self._calls.mark, some))

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`. Two round trips."""
        await self._remove(await self._lanes.submit(self._calls.mark_all, address))

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`. Several nodes may sweep at once."""
        checked_limit(limit, most=None)
        since = self._clock() - self._bounds.max_age
        gone = 0
        while gone < limit:
            some = min(limit - gone, _STREAMS_AT_ONCE)
            due, numbers = await self._lanes.submit(self._calls.mark_old, (since, some))
            gone += await self._remove(numbers)
            if due < some:
                break
        return gone + await self._make_room(limit - gone)

    def stats(self) -> dict[str, float]:
        """Appends and events so far, events that gave way to newer ones, streams that did, and appends that did not
        simply follow; of this node."""
        return {
            "appends_total": self._appends,
            "appended_events_total": self._appended_events,
            "trimmed_events_total": self._trimmed_events,
            "evicted_streams_total": self._evicted_streams,
            "conflicts_total": self._conflicts,
        }

    async def _keep_within_bounds(self, found: Appended, size: int) -> None:
        bounds = self._bounds
        # Appended it is, so nothing that goes wrong now may reach the caller.
        with contextlib.suppress(StoreUnavailable):
            count = found.last + 1 - found.oldest
            if count > bounds.max_events + bounds.max_events // _SLACK or (
                found.bytes > bounds.max_bytes + bounds.max_bytes // _SLACK and count > 1
            ):
                asked = Trim(found.number or 0, bounds.max_bytes, bounds.max_events)
                self._trimmed_events += await self._lanes.submit(self._calls.trim, asked)
            self._bytes_since_look += size
            if self._bytes_since_look > bounds.max_total_bytes // (2 * _SLACK):
                await self._make_room(_STREAMS_AT_ONCE)

    async def _make_room(self, limit: int) -> int:
        """Remove up to `limit` streams that nobody has appended to for longest, as far as there is too much."""
        self._bytes_since_look = 0
        gone = 0
        while gone < limit:
            some = min(limit - gone, _STREAMS_AT_ONCE)
            asked = (self._bounds.max_total_bytes, some)
            went = await self._remove(await self._lanes.submit(self._calls.mark_longest_ago, asked))
            gone += went
            self._evicted_streams += went
            if went < some:
                break
        return gone

    async def _remove(self, numbers: Sequence[int]) -> int:
        """Remove streams that are marked; how many went."""
        return await self._lanes.submit(self._calls.remove, list(numbers)) if numbers else 0
