"""`Tails`: where the streams of an event log end, as this node last saw them, and how much of them NATS still holds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from ..address import Address
from ..event_log import EventLogBounds
from ..event_rules import Tail
from .event_records import Append

__all__ = ["Segment", "StreamEnd", "StreamName", "Tails"]

KNOWN = 10_000
"""Streams whose end is kept, so that an append is one round trip. Those of longest ago are forgotten."""

_LONGEST_HEAD = 1024
"""Bytes: a stream with a longer head is not kept, so that all of them have a bound in bytes too."""

_SEGMENTS = 16
"""In how many steps a stream of full size is trimmed."""

_SLACK = 1.25
"""A stream is trimmed when it is so many times as long as it may be; readers are shown no more than it may be."""

_FAR_TOO_LONG = 2.5

StreamName = tuple[Address, str]


@dataclass(slots=True)
class Segment:
    """A part of a stream, from the message with sequence number `start` on to the next segment."""

    start: int
    events: int
    bytes: int


@dataclass(slots=True)
class StreamEnd:
    """A stream as its last append left it."""

    sequence: int
    """Of the message of the last append: what the next one must follow."""
    head: bytes
    tail: Tail
    segments: list[Segment] = field(default_factory=list[Segment])
    """What NATS holds of it, oldest first. What others wrote is one segment that starts at 0."""

    @classmethod
    def of(cls, sequence: int, append: Append) -> StreamEnd:
        """As found in NATS."""
        tail = Tail(append.last, append.writer, append.ended)
        return cls(sequence, append.head, tail, [Segment(0, append.held_events, append.held_bytes)])

    @property
    def held_events(self) -> int:
        """Events that NATS holds, unless they were too old."""
        return sum(segment.events for segment in self.segments)

    @property
    def held_bytes(self) -> int:
        """Bytes of them."""
        return sum(segment.bytes for segment in self.segments)

    def grow(self, start: int, events: int, bytes: int, bounds: EventLogBounds) -> None:
        """Note an append whose first message is number `start`."""
        newest = self.segments[-1] if self.segments else None
        small_enough = (
            newest is not None
            and newest.start > 0
            and newest.events < bounds.max_events / _SEGMENTS
            and newest.bytes < bounds.max_bytes / _SEGMENTS
        )
        if newest is not None and small_enough:
            newest.events += events
            newest.bytes += bytes
        else:
            self.segments.append(Segment(start, events, bytes))

    def too_long(self, bounds: EventLogBounds) -> bool:
        """Whether it is worth trimming."""
        return self._times_longer(bounds, _SLACK)

    def needs_a_look(self, bounds: EventLogBounds) -> bool:
        """Whether it must be read to be trimmed: most of it was written by others."""
        return bool(self.segments) and not self.segments[0].start and self._times_longer(bounds, _FAR_TOO_LONG)

    def cut(self, bounds: EventLogBounds) -> int:
        """Forget the segments that lie beyond the bounds; the sequence number below which all may go, 0 if nothing."""
        events = bytes = 0
        for place in range(len(self.segments) - 1, 0, -1):
            segment = self.segments[place]
            events += segment.events
            bytes += segment.bytes
            if events >= bounds.max_events or bytes >= bounds.max_bytes:
                del self.segments[:place]
                return segment.start
        return 0

    def _times_longer(self, bounds: EventLogBounds, times: float) -> bool:
        return self.held_events > times * bounds.max_events or self.held_bytes > times * bounds.max_bytes


class Tails:
    """The ends of the streams that this node appends to."""

    def __init__(self) -> None:
        self._known: OrderedDict[StreamName, StreamEnd] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def take(self, name: StreamName) -> StreamEnd | None:
        """The end of a stream, forgotten until it is put back; others may have appended since."""
        return self._known.pop(name, None)

    def put(self, name: StreamName, end: StreamEnd) -> None:
        """Keep it, unless nothing follows."""
        if end.tail.ended or len(end.head) > _LONGEST_HEAD:
            return
        self._known[name] = end
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def forget_actor(self, address: Address) -> None:
        """Have the next writer of each of its streams look first."""
        for name in [name for name in self._known if name[0] == address]:
            del self._known[name]
