"""`Backlog`: the messages of one stream that are kept, numbered and within bounds."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["Backlog", "Household"]

MAX_EVENTS: Final = 4096
MAX_BYTES: Final = 8 * 2**20


class Household(Protocol):
    """What the streams of one session have in common: a bound in bytes over all of them."""

    def took(self, size: int) -> None:
        """A stream keeps so many bytes more (or, negative, less)."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether another stream, or the oldest events of this one, must go for more to be kept."""
        ...


class Backlog:
    """Messages numbered from 1 without gaps. Within `MAX_EVENTS` and `MAX_BYTES`; what makes room is the oldest."""

    __slots__ = ("_bytes", "_events", "_first", "household", "last")

    def __init__(self) -> None:
        self._events: list[bytes] | None = None
        self._first = 1
        self._bytes = 0
        self.last = 0
        """The number of the newest message; 0 before the first."""
        self.household: Household | None = None
        """The session that it counts for, once it is one of its streams."""

    @property
    def oldest(self) -> int:
        """The number of the oldest message that is still kept."""
        return self._first

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    def begin_after(self, last: int) -> None:
        """Number the first message that is kept `last + 1`. Before there is any."""
        self._first = last + 1
        self.last = last

    def between(self, first: int, last: int) -> list[bytes]:
        """The messages of these numbers, both included, which must be kept."""
        events = self._events or []
        return events[first - self._first : last + 1 - self._first]

    def keep(self, payload: bytes, *, any_size: bool = False) -> None:
        """Add a message; the oldest make room, except for one of `any_size`."""
        if self._events is None:
            self._events = []
        self._events.append(payload)
        self.last += 1
        self._grow(len(payload))
        excess = len(self._events) - MAX_EVENTS
        if excess > 0:
            self.forget(excess)
        if not any_size:
            while self._bytes > MAX_BYTES and len(self._events) > 1:
                self.forget(1)

    def forget(self, count: int) -> None:
        """Drop the oldest `count` messages."""
        events = self._events
        if not events or count <= 0:
            return
        freed = sum(map(len, events[:count]))
        self._first += min(count, len(events))
        del events[:count]
        self._grow(-freed)

    def keep_no_more_than(self, last: int) -> None:
        """Drop the messages after number `last`."""
        events = self._events or []
        dropped = events[max(last + 1 - self._first, 0) :]
        if dropped:
            del events[-len(dropped) :]
            self.last -= len(dropped)
            self._grow(-sum(map(len, dropped)))

    def join(self, household: Household | None) -> None:
        """Count for a session, or for none any more."""
        if self.household is not None:
            self.household.took(-self._bytes)
        self.household = household
        if household is not None:
            household.took(self._bytes)

    def _grow(self, size: int) -> None:
        self._bytes += size
        if self.household is not None:
            self.household.took(size)
