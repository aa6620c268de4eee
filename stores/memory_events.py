"""`MemoryEventLog`: streams in a dict, for tests and for one process whose sessions may die with it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from .address import Address
from .arguments import checked_limit
from .errors import StoreUnavailable
from .event_log import STREAM_OVERHEAD, EventLogBounds, LoggedStream
from .event_rules import Tail, checked_after, checked_events, checked_names, checked_stream, missing_events

__all__ = ["MemoryEventLog"]

Key = tuple[Address, str]


class _Stream:
    __slots__ = ("appended", "bytes", "ended", "events", "head", "last", "writer")

    def __init__(self, head: bytes, last: int) -> None:
        self.head = head
        self.last = last
        self.events: list[bytes] = []
        self.bytes = 0
        self.writer = ""
        self.ended = False
        self.appended = 0.0

    @property
    def oldest(self) -> int:
        return self.last - len(self.events) + 1


class MemoryEventLog:
    """An `EventLog` in this process. It keeps the bytes objects that it is given; they are not copied.

    No method waits, so none can be cancelled half way. Use it on one event loop only. At `max_total_bytes` the streams
    that nobody has appended to for longest go at once.

    Args:
        clock: Seconds since the Unix epoch.
        bounds: What is kept; `EventLogBounds()` if not given.
    """

    def __init__(self, clock: Callable[[], float] = time.time, bounds: EventLogBounds | None = None) -> None:
        self._clock = clock
        self._bounds = bounds or EventLogBounds()
        # In the order of their newest append, so that what goes first stands first.
        self._streams: OrderedDict[Key, _Stream] = OrderedDict()
        self._of_actor: dict[Address, set[str]] = {}
        self._bytes = 0
        self._appends = 0
        self._appended_events = 0
        self._trimmed_events = 0
        self._evicted_streams = 0
        self._closed = False

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
        self.append_now(address, stream, first, events, head=head, writer=writer, ends=ends)

    def append_now(
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
        """`append` without a coroutine, for a node that appends with every event it sends."""
        now = self._now()
        key = (address, stream)
        entry = self._live(key, now)
        if entry is None or entry.writer != writer:
            checked_names(stream, writer)
        size = checked_events(stream, first, events, head, most=self._bounds.max_total_bytes)
        if entry is None:
            entry = self._begin(key, head, first)
        elif entry.ended or first != entry.last + 1 or not events:
            # Does not simply follow.
            tail = Tail(entry.last, entry.writer, entry.ended)
            there = missing_events(address, stream, tail, first, len(events), writer, ends=ends)
            if there is None:
                return
            if there:
                events = events[there:]
                size = sum(map(len, events))
        entry.events.extend(events)
        entry.last += len(events)
        entry.bytes += size
        self._bytes += size
        entry.writer = writer
        entry.ended = ends
        entry.appended = now
        self._streams.move_to_end(key)
        self._appends += 1
        self._appended_events += len(events)
        if len(entry.events) > self._bounds.max_events or entry.bytes > self._bounds.max_bytes:
            self._trim(entry)
        while self._bytes > self._bounds.max_total_bytes and len(self._streams) > 1:
            self._remove(next(iter(self._streams)))
            self._evicted_streams += 1

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`."""
        now = self._now()
        checked_stream(stream)
        checked_after(after)
        entry = self._live((address, stream), now)
        if entry is None:
            return None
        oldest = entry.oldest
        events = tuple(entry.events[max(after + 1 - oldest, 0) :])
        return LoggedStream(
            entry.head, entry.last + 1 - len(events), events, entry.last, oldest, entry.writer, entry.ended
        )

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """See `EventLog.drop`."""
        self._now()
        for _, stream in streams:
            checked_stream(stream)
        for address, stream in streams:
            if (address, stream) in self._streams:
                self._remove((address, stream))

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`."""
        self._now()
        for stream in tuple(self._of_actor.get(address, ())):
            self._remove((address, stream))

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`. Looks only at the streams that go."""
        now = self._now()
        checked_limit(limit, most=None)
        gone = 0
        while gone < limit and self._streams:
            key, entry = next(iter(self._streams.items()))
            if entry.appended + self._bounds.max_age > now:
                break
            self._remove(key)
            gone += 1
        return gone

    def close(self) -> None:
        """Forget everything; every later call raises `StoreUnavailable`."""
        self._closed = True
        self._streams.clear()
        self._of_actor.clear()
        self._bytes = 0

    def stats(self) -> dict[str, float]:
        """Appends and events so far; streams held (too old ones that wait for a sweep included) and their bytes, heads
        and `STREAM_OVERHEAD` included; events that gave way to newer ones, and streams that did."""
        return {
            "appends_total": self._appends,
            "appended_events_total": self._appended_events,
            "trimmed_events_total": self._trimmed_events,
            "evicted_streams_total": self._evicted_streams,
            "streams": len(self._streams),
            "bytes": self._bytes,
        }

    def _now(self) -> float:
        if self._closed:
            raise StoreUnavailable("the memory event log is closed", outcome_unknown=False)
        return self._clock()

    def _live(self, key: Key, now: float) -> _Stream | None:
        entry = self._streams.get(key)
        if entry is not None and entry.appended + self._bounds.max_age <= now:
            self._remove(key)
            return None
        return entry

    def _begin(self, key: Key, head: bytes, first: int) -> _Stream:
        entry = self._streams[key] = _Stream(head, first - 1)
        self._of_actor.setdefault(key[0], set()).add(key[1])
        self._bytes += len(head) + STREAM_OVERHEAD
        return entry

    def _remove(self, key: Key) -> None:
        entry = self._streams.pop(key)
        self._bytes -= entry.bytes + len(entry.head) + STREAM_OVERHEAD
        names = self._of_actor[key[0]]
        names.discard(key[1])
        if not names:
            del self._of_actor[key[0]]

    def _trim(self, entry: _Stream) -> None:
        events = entry.events
        gone = max(len(events) - self._bounds.max_events, 0)
        freed = sum(map(len, events[:gone]))
        while entry.bytes - freed > self._bounds.max_bytes and gone < len(events) - 1:
            freed += len(events[gone])
            gone += 1
        if gone:
            del events[:gone]
            entry.bytes -= freed
            self._bytes -= freed
            self._trimmed_events += gone
