"""`Reading`: a stream put together from its messages."""

from __future__ import annotations

from collections import deque

from ..event_log import EventLogBounds, LoggedStream
from .event_records import Append, unpack_append, unpack_events
from .event_stream import Message
from .event_tails import Segment
from .records import Parts

__all__ = ["Reading"]


class Reading:
    """Takes the messages of one stream in order. Parts that no append refers to, as a writer that crashed leaves them,
    and appends of which a part is gone, are passed over."""

    def __init__(self, bounds: EventLogBounds) -> None:
        self._bounds = bounds
        self._newest: Append | None = None
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._parts: dict[str, dict[int, bytes]] = {}
        self._starts: dict[str, int] = {}
        self.sequence = 0
        """Of the last message."""
        self.segments: list[Segment] = []
        """A segment for each append."""

    def take(self, message: Message) -> None:
        """The next message.

        Raises:
            StoreVersionError, StoreCorrupt: It cannot be read.
        """
        self.sequence = message.sequence
        tokens = message.key.split(".")
        if len(tokens) > 4:
            # <kind>.<id>.<stream>.p.<generation>.<number>
            generation = tokens[4]
            self._parts.setdefault(generation, {})[int(tokens[5])] = message.data
            self._starts.setdefault(generation, message.sequence)
            return
        append = unpack_append(message.key, message.data)
        before = self._newest
        if before is not None and append.first != before.last + 1:
            # Some went while we read, or all of it did and it began again.
            self._clear()
        self._newest = append
        start, events = self._events_of(append, message)
        if events is None:
            self._clear()
            events = ()
        size = sum(map(len, events))
        self.segments.append(Segment(start, len(events), size))
        self._events.extend(events)
        self._bytes += size
        while len(self._events) > self._bounds.max_events or (
            self._bytes > self._bounds.max_bytes and len(self._events) > 1
        ):
            self._bytes -= len(self._events.popleft())

    def result(self, after: int) -> LoggedStream | None:
        """What was read; None if there was no append."""
        newest = self._newest
        if newest is None:
            return None
        last = newest.last
        oldest = last + 1 - len(self._events)
        events = tuple(self._events)[max(after + 1 - oldest, 0) :]
        return LoggedStream(newest.head, last + 1 - len(events), events, last, oldest, newest.writer, newest.ended)

    def _events_of(self, append: Append, message: Message) -> tuple[int, tuple[bytes, ...] | None]:
        """Where the append starts, and its events; None if parts of it are gone."""
        body = append.body
        if not isinstance(body, Parts):
            return message.sequence, body
        start = self._starts.pop(body.generation, message.sequence)
        parts = self._parts.pop(body.generation, {})
        if len(parts) < body.count:
            return start, None
        data = b"".join(parts[number] for number in range(body.count))
        if len(data) != body.size:
            return start, None
        return start, unpack_events(message.key, data, append.count)

    def _clear(self) -> None:
        self._events.clear()
        self._bytes = 0
