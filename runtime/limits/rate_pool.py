"""`RatePool`: a node's share of a rate, such as calls a minute. What is taken is spent, and told to the ledger."""

from __future__ import annotations

from typing import ClassVar

from .ledger import TICK, tick_of
from .pool import Pool
from .sharing import Sharing

__all__ = ["RatePool"]


class RatePool(Pool):
    """See `Pool`. What is spent is dated tick by tick: within one, a number goes up, and no more."""

    __slots__ = ("_dated", "_tick", "_tick_ends")

    spends: ClassVar[bool] = True

    def __init__(self, key: str, sharing: Sharing) -> None:
        super().__init__(key, sharing)
        self._dated = 0
        """How many of those that were taken stand in reports."""
        self._tick = 0
        self._tick_ends = float("-inf")
        """Monotonic seconds until which what is taken is of this tick."""

    def take(self, limit: int, now: float) -> bool:
        """Take a token if one is in hand. Never waits. `now`: monotonic seconds."""
        used = self._used
        if used >= self._plain_below or now >= self._tick_ends or limit != self._limit:
            return self._take_slowly(limit)
        self._used = used + 1
        return True

    def _take_one(self) -> None:
        now = self._sharing.clock.monotonic()
        if now >= self._tick_ends:
            self._date()
            wall = self._sharing.wall()
            self._tick = tick_of(wall)
            self._tick_ends = now + (self._tick + 1) * TICK - wall
        self._used += 1

    def _date(self) -> None:
        if self._used > self._dated:
            self._reports.spend(self._used - self._dated, self._tick)
            self._dated = self._used

    @property
    def _untold(self) -> bool:
        return self._used > self._dated or bool(self._reports)

    @property
    def in_use(self) -> int:
        return 0

    @property
    def takes(self) -> int:
        return self._used
