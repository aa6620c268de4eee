"""`LocalRate`: a rate that one node counts by itself, such as a session's, which is at one node at a time."""

from __future__ import annotations

from collections import deque
from typing import Final

from .ledger import TICK, WINDOW

__all__ = ["LocalRate"]

_TICKS: Final = round(WINDOW / TICK)


class LocalRate:
    """What was spent in the last minute. Sans-I/O: `now` is monotonic seconds. Holds a count for each tick of it.

    As in the `Ledger`, no minute sees more than the limit.
    """

    __slots__ = ("_spent", "total")

    def __init__(self) -> None:
        self._spent: deque[list[int]] = deque()
        self.total = 0
        """What was spent; some of it may be older than it seems, which `take` and `wait` look at before they refuse."""

    def take(self, limit: int, now: float) -> float | None:
        """Spend one; or the seconds until there is one, and nothing is spent."""
        if self.total >= limit:
            self._forget(int(now // TICK))
            if self.total >= limit:
                return self._returns_in(limit, now)
        present = int(now // TICK)
        spent = self._spent
        if spent and spent[-1][0] >= present:
            spent[-1][1] += 1
            self.total += 1
        else:
            self.spend(1, now)
        return None

    def spend(self, count: int, now: float) -> None:
        """Spend so much, whatever the limit is."""
        present = int(now // TICK)
        self.total += count
        spent = self._spent
        if spent and spent[-1][0] >= present:
            spent[-1][1] += count
        else:
            # Once a tick, so that what is held stays bounded.
            self._forget(present)
            spent.append([present, count])

    def untake(self) -> None:
        """The last one that was taken is not wanted after all."""
        if self._spent:
            self._spent[-1][1] -= 1
            self.total -= 1

    def wait(self, limit: int, now: float) -> float | None:
        """Seconds until less than `limit` is spent; None if that is so now."""
        if self.total < limit:
            return None
        self._forget(int(now // TICK))
        return None if self.total < limit else self._returns_in(limit, now)

    def resting(self, now: float) -> bool:
        """Whether nothing was spent in the last minute."""
        self._forget(int(now // TICK))
        return not self.total

    def _forget(self, present: int) -> None:
        spent = self._spent
        while spent and spent[0][0] + _TICKS < present:
            self.total -= spent.popleft()[1]

    def _returns_in(self, limit: int, now: float) -> float:
        missing = self.total - limit + 1
        for tick, count in self._spent:
            missing -= count
            if missing <= 0:
                return max(0.0, (tick + _TICKS + 1) * TICK - now)
        # A limit of nothing: never, but who asks again in a minute may find another limit.
        return WINDOW
