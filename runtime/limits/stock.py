"""`Stock`: a tenant's sessions, or the bytes of their state, against a limit: see `Tally`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ...stores import StoreError
from .counters import CountersUnavailable
from .sharing import Exhausted, Sharing
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
        "_adding",
        "_alone",
        "_asking",
        "_census",
        "_counted_at",
        "_counting",
        "_one_change",
        "_pause",
        "_sharing",
        "_untold",
        "count",
        "fresh_until",
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
        self._adding: asyncio.Task[None] | None = None
        self._asking: list[tuple[int, asyncio.Future[bool]]] = []
        self._one_change = asyncio.Lock()
        self._untold = 0
        self._alone = 0
        """What was entered while this node counted alone, and the others have yet to hear of."""
        self._pause = COUNT_AGAIN
        self._counted_at = float("-inf")
        self.fresh_until = float("-inf")
        """Monotonic seconds until which it is known well enough how much there is; then `learn`."""

    async def add_one(self, limit: int) -> None:
        """Enter one more. Cancellation enters none.

        Raises:
            Exhausted: There are as many as there may be.
            CountersUnavailable: Nobody can say, and this node must not count alone.
        """
        for counted in (False, True):
            if await self._ask(limit):
                return
            if not counted and not await self._count_again():
                break
        raise Exhausted(self._pause)

    async def _ask(self, limit: int) -> bool:
        """Whether one more was entered. All who ask at once are entered together: one by one, each of them against
        all the others, most would find the record changed every time, and be told that nobody can say.
        """
        asked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asking.append((limit, asked))
        if self._adding is None:
            self._adding = self._sharing.tasks.spawn(self._add_all())
        granted = False
        try:
            granted = await asked
        except asyncio.CancelledError:
            if asked.done() and not asked.cancelled() and asked.exception() is None and asked.result():
                self._untold -= 1
            raise
        return granted

    async def _add_all(self) -> None:
        try:
            while self._asking:
                asking, self._asking = self._asking, []
                try:
                    verdicts = await self._enter([limit for limit, _ in asking])
                except BaseException as error:
                    _fail(asking, error)
                    if not isinstance(error, CountersUnavailable):
                        raise
                    continue
                for (_, asked), granted in zip(asking, verdicts, strict=True):
                    if not asked.done():
                        asked.set_result(granted)
                    elif granted:
                        # He has left meanwhile.
                        self._untold -= 1
        except Exception:
            # Its task is one of a group, which an error would end.
            logger.exception("what a tenant has at %s cannot be entered", self.key)
        finally:
            self._adding = None
            _fail(self._asking, CountersUnavailable("this node stops counting"))
            self._asking = []

    async def _enter(self, limits: list[int]) -> list[bool]:
        """Of each of those who ask, whether one more was entered. A tenant's principals may have different limits."""
        verdicts: list[bool] = []

        def add(tally: Tally) -> int:
            before = tally.count
            verdicts.clear()
            for limit in limits:
                verdicts.append(tally.count < limit)
                if verdicts[-1]:
                    tally.add(1)
            return tally.count - before

        counted = await self._change(add)
        return [False] * len(limits) if counted is None else verdicts

    async def _change(self, add: Callable[[Tally], int]) -> int | None:
        """Enter what is to be told, and what `add` adds; what it returns, None where nobody has counted yet."""
        async with self._one_change:
            return await self._change_now(add)

    async def _change_now(self, add: Callable[[Tally], int]) -> int | None:
        untold, self._untold = self._untold, 0
        before = self._alone

        def step(packed: bytes | None, alone: bool) -> tuple[bytes | None, tuple[int, int] | None]:
            tally = Tally.unpack(packed)
            if tally is None:
                return packed, None
            tally.add(untold if alone else untold + before)
            added = add(tally)
            return tally.pack(), (tally.count, added)

        try:
            found, alone = await self._sharing.counters.change(self.key, step, LASTING)
        except BaseException:
            self._untold += untold
            raise
        if found is None:
            # What has come or gone, a census will find.
            return None
        self.count, added = found
        self._alone = self._alone + untold + added if alone else self._alone - before
        return added

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

    def count_soon(self) -> None:
        """Count again, if the last time is long enough ago: the limit is in sight."""
        if self._counting is None and self._sharing.clock.monotonic() - self._counted_at > self._pause:
            self._counting = self._sharing.tasks.spawn(self._count())

    async def _tell(self) -> None:
        if await self._change(lambda tally: 0) is None:
            self.count = None
        self.fresh_until = self._sharing.clock.monotonic() + FRESH

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
        # What was entered alone it does find.
        alone_before = self._alone
        began = sharing.clock.monotonic()
        found = await self._census()
        took = sharing.clock.monotonic() - began
        self._pause = max(COUNT_AGAIN, PAUSE * took)

        def enter(packed: bytes | None, alone: bool) -> tuple[bytes | None, int]:
            tally = Tally.after_census(found, before, Tally.unpack(packed), sharing.wall())
            return tally.pack(), tally.count

        self.count, alone = await sharing.counters.change(self.key, enter, LASTING)
        self._untold -= gone
        if not alone and self._alone == alone_before:
            self._alone = 0
        return True

    @property
    def resting(self) -> bool:
        """Everything is told: whoever needs the stock may make it anew."""
        return not (self._untold or self._alone or self._asking or self._counting is not None)

    async def tidy(self) -> None:
        """Tell what has come and gone."""
        if not self._untold and not self._alone:
            return
        try:
            await self._tell()
        except CountersUnavailable:
            return


def _fail(asking: list[tuple[int, asyncio.Future[bool]]], error: BaseException) -> None:
    for _, asked in asking:
        if not asked.done():
            unsaid = CountersUnavailable("the counters of the limits failed")
            asked.set_exception(error if isinstance(error, CountersUnavailable) else unsaid)
