"""`LocalRate`: a rate that one node counts by itself, such as a session's, which is at one node at a time."""

from __future__ import annotations

from typing import Final

from .ledger import TICK, WINDOW

__all__ = ["LocalRate"]

_TICKS: Final = round(WINDOW / TICK)


class LocalRate:
    """What was spent in the last minute. Sans-I/O: `now` is monotonic seconds. Holds a count for each tick of it.

    As in the `Ledger`, no minute sees more than the limit. Within a tick a number goes up, and no more.
    """

    __slots__ = ("_before", "_spent", "_tick", "_tick_ends", "total")

    def __init__(self) -> None:
        self._spent: list[tuple[int, int]] = []
        """Ticks before the present one, and what was spent in each."""
        self._tick = 0
        self._tick_ends = float("-inf")
        """Monotonic seconds until which what is spent is of the present tick."""
        self._before = 0
        """What of `total` is not of the present tick."""
        self.total = 0
        """What was spent; some of it may be older than it seems, which `take` and `wait` look at before they refuse."""

    def take(self, limit: int, now: float) -> float | None:
        """Spend one; or the seconds until there is one, and nothing is spent."""
        if now >= self._tick_ends:
            self._begin_tick(now)
        if self.total >= limit:
            return self._returns_in(limit, now)
        self.total += 1
        return None

    def spend(self, count: int, now: float) -> None:
        """Spend so much, whatever the limit is."""
        if now >= self._tick_ends:
            self._begin_tick(now)
        self.total += count

    def untake(self) -> None:
        """The last one that was taken is not wanted after all."""
        self.total -= 1

    def wait(self, limit: int, now: float) -> float | None:
        """Seconds until less than `limit` is spent; None if that is so now."""
        if now >= self._tick_ends:
            self._begin_tick(now)
        return None if self.total < limit else self._returns_in(limit, now)

    def resting(self, now: float) -> bool:
        """Whether nothing was spent in the last minute."""
        if now >= self._tick_ends:
            self._begin_tick(now)
        return not self.total

    def _begin_tick(self, now: float) -> None:
        """Once a tick, so that what is held stays bounded."""
        present, spent = int(now // TICK), self._spent
        count = self.total - self._before
        if count:
            spent.append((self._tick, count))
        while spent and spent[0][0] + _TICKS < present:
            self.total -= spent.pop(0)[1]
        self._before = self.total
        self._tick, self._tick_ends = present, (present + 1) * TICK

    def _returns_in(self, limit: int, now: float) -> float:
        missing = self.total - limit + 1
        for tick, count in (*self._spent, (self._tick, self.total - self._before)):
            missing -= count
            if missing <= 0:
                return max(0.0, (tick + _TICKS + 1) * TICK - now)
        # A limit of nothing: never, but who asks again in a minute may find another limit.
        return WINDOW
