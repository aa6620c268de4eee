"""`Stock`: a tenant's sessions, or the bytes of their state, against a limit: see `Tally`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ...stores import StoreError
from .counters import CountersUnavailable
from .pool import Exhausted, Sharing
from .tally import Tally

__all__ = ["COUNT_AGAIN", "Stock"]

logger = logging.getLogger("understudy.limits")

COUNT_AGAIN: Final = 5.0
"""Seconds between two counts in the store, while a tenant is at its limit; a slow count pauses for longer."""
FRESH: Final = 10.0
"""Seconds after which a node that is about to let something grow looks again how much there is."""
LASTING: Final = 900.0
"""Seconds after which a tally that nobody has changed is counted anew."""
PAUSE: Final = 20
"""So many times as long as a count took nobody counts again."""


class Stock:
    """What this node knows of one tenant's stock, and has yet to tell."""

    __slots__ = (
        "_census",
        "_changing",
        "_counted_at",
        "_counting",
        "_looked_at",
        "_pause",
        "_sharing",
        "_untold",
        "count",
        "key",
    )

    def __init__(self, key: str, sharing: Sharing, census: Callable[[], Awaitable[int]]) -> None:
        """`census` counts what there is in the store. Raises StoreError, TimeoutError."""
        self.key = key
        self.count: int | None = None
        """What there was when this node last looked; None: it has not."""
        self._sharing = sharing
        self._census = census
        self._counting: asyncio.Task[bool] | None = None
        self._changing: asyncio.Task[bool] | None = None
        self._untold = 0
        self._pause = COUNT_AGAIN
        self._counted_at = self._looked_at = float("-inf")

    async def add_one(self, limit: int) -> None:
        """Enter one more.

        Raises:
            Exhausted: There are as many as there may be.
            CountersUnavailable: Nobody can say, and this node must not count alone.
        """
        for counted in (False, True):
            if await self._add_one(limit):
                return
            if not counted and not await self._count_again():
                break
        raise Exhausted(self._pause)

    async def _add_one(self, limit: int) -> bool:
        untold, self._untold = self._untold, 0

        def step(packed: bytes | None, alone: bool) -> tuple[bytes | None, int | None]:
            tally = Tally.unpack(packed)
            if tally is None:
                return packed, None
            tally.add(untold)
            fits = tally.count < limit
            if fits:
                tally.add(1)
            return tally.pack(), tally.count if fits else -1 - tally.count

        try:
            told, _ = await self._sharing.counters.change(self.key, step, LASTING)
        except BaseException:
            self._untold += untold
            raise
        if told is None:
            return False
        self.count = told if told >= 0 else -1 - told
        return told >= 0

    def add(self, count: int) -> None:
        """Enter, soon, that so much has come, or, negative, gone."""
        self._untold += count

    @property
    def present(self) -> int | None:
        """What there is, as far as this node knows; None: it has yet to look."""
        return None if self.count is None else max(0, self.count + self._untold)

    async def learn(self) -> None:
        """Look how much there is.

        Raises:
            CountersUnavailable: Nobody can say, and this node must not count alone; or the store does not answer.
        """
        await self._tell()
        if self.count is None and not await self._count_again():
            raise CountersUnavailable("what is in the store cannot be counted")

    @property
    def stale(self) -> bool:
        """Whether this node has to look, and may be told, how much there is by now."""
        return self._sharing.clock.monotonic() - self._looked_at > FRESH

    def count_soon(self) -> None:
        """Count again, if the last time is long enough ago: the limit is in sight."""
        if self._counting is None and self._sharing.clock.monotonic() - self._counted_at > self._pause:
            self._counting = self._sharing.tasks.spawn(self._count())

    async def _tell(self) -> None:
        untold, self._untold = self._untold, 0

        def step(packed: bytes | None, alone: bool) -> tuple[bytes | None, int | None]:
            tally = Tally.unpack(packed)
            if tally is None:
                return packed, None
            tally.add(untold)
            return tally.pack(), tally.count

        try:
            self.count, _ = await self._sharing.counters.change(self.key, step, LASTING)
        except BaseException:
            self._untold += untold
            raise
        self._looked_at = self._sharing.clock.monotonic()

    # Counting

    async def _count_again(self) -> bool:
        """Whether the store was counted anew."""
        if self._counting is None:
            self._counting = self._sharing.tasks.spawn(self._count())
        return await asyncio.shield(self._counting)

    async def _count(self) -> bool:
        try:
            return await self._counted()
        except (CountersUnavailable, StoreError, TimeoutError) as error:
            logger.warning("what a tenant has in the store cannot be counted: %s", error or type(error).__name__)
            return False
        except Exception:
            # Its task is one of a group, which an error would end.
            logger.exception("what a tenant has in the store cannot be counted")
            return False
        finally:
            self._counting = None

    async def _counted(self) -> bool:
        sharing = self._sharing
        self._counted_at = sharing.clock.monotonic()

        def look(packed: bytes | None, alone: bool) -> tuple[bytes | None, Tally | None]:
            return packed, Tally.unpack(packed)

        before, _ = await sharing.counters.change(self.key, look, LASTING)
        if before is not None and before.age(sharing.wall()) < self._pause:
            self.count = before.count
            return False
        # What is gone by now the census does not find: to take it away once more would make the tally too low.
        gone = min(0, self._untold)
        began = sharing.clock.monotonic()
        found = await self._census()
        took = sharing.clock.monotonic() - began
        self._pause = max(COUNT_AGAIN, PAUSE * took)

        def enter(packed: bytes | None, alone: bool) -> tuple[bytes | None, int]:
            tally = Tally.after_census(found, before, Tally.unpack(packed), sharing.wall())
            return tally.pack(), tally.count

        self.count, _ = await sharing.counters.change(self.key, enter, LASTING)
        self._untold -= gone
        return True

    @property
    def resting(self) -> bool:
        """Everything is told: whoever needs the stock may make it anew."""
        return not (self._untold or self._counting is not None)

    async def tidy(self) -> None:
        """Tell what has come and gone."""
        if not self._untold:
            return
        try:
            await self._tell()
        except CountersUnavailable:
            return
