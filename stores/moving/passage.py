"""`Passage`: how one record gets from the former store to the next, whatever crashes, and whoever meets it.

    1. claim in the former store          fences whoever held it, by the next epoch e
    2. placeholder in the next store      at epoch e, one version below the record's; it is read back
    3. tombstone in the former store      saved under epoch e: from here on the record belongs to the next store
    4. the record in the next store       saved over the placeholder, at epoch e
    5. the tombstone goes

Until 3 is acknowledged the record is in the former store, and a claim there undoes all by its epoch. From 3 on whoever
meets the tombstone does 4 and 5. Where the next store has neither a session nor the placeholder of this very move, the
session has ended there since: the placeholder was there before the tombstone, and lives longer. An address only ever
goes this way, so whoever looks in the former store first and in the next one then misses nothing.

Epochs go on: the next store begins with the one that the former gave out last, so an epoch names one claim of an
address whichever store gave it out. Where claims have raised a mark's epoch meanwhile, the session catches up with it
before the mark goes.

Who moves the other way, by mistake, does the same from the next store to the former. What makes that safe too: a
placeholder is read back, as one of an earlier move that was claimed since may have the epoch of a new one; one that is
found in the next store is taken for a stray only if the former has nothing then; a tombstone that is not there any more
says nothing about the session.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from ..address import Address
from ..adopting import AdoptsRecords
from ..errors import RecordExists, RecordNotFound, StaleEpoch, StoreError, StoreUnavailable
from ..record import Record
from ..store import SessionStore
from .marks import MOVER, Tombstone, is_placeholder, placeholder

__all__ = ["ATTEMPTS", "NextStore", "Passage", "contended"]

ATTEMPTS: Final = 10
"""Times that a record is looked at again because another got there first."""


MOST_BEHIND: Final = 64
"""Epochs that a session is raised by: a call for each. A mark has more where a store was away for long."""


class NextStore(SessionStore, AdoptsRecords, Protocol):
    """A store that records can be moved into."""


class Passage:
    """Moves records from `former` to `next`. Every step may be repeated, by anybody.

    Args:
        clock: Seconds since the Unix epoch.
    """

    def __init__(self, former: SessionStore, next: NextStore, *, clock: Callable[[], float] = time.time) -> None:
        self._former = former
        self._next = next
        self._clock = clock
        self.moved = 0
        """Records that were moved here."""
        self.completed = 0
        """Records whose move another had begun."""
        self.overtaken = 0
        """Moves that were begun here and that another claim came before."""

    async def move(self, record: Record) -> bool:
        """Move `record`, which the former store has just returned from a claim; False if another came before: whoever
        asks must look at the former store again. Cancellation leaves it where a step leaves it.

        Raises:
            RecordNotFound: It has expired.
            StoreUnavailable: A store fails. The session is wherever it was, or on its way.
        """
        address = record.address
        self._left(address, record.expires)
        if not await self._hold_place(record):
            self.overtaken += 1
            return False
        try:
            await self._former.save(
                address,
                epoch=record.epoch,
                version=record.version + 1,
                snapshot=Tombstone.of(record).pack(),
                ttl=self._left(address, record.expires),
            )
            await self._next.save(
                address,
                epoch=record.epoch,
                version=record.version,
                snapshot=record.snapshot,
                ttl=self._left(address, record.expires),
            )
        except (StaleEpoch, RecordNotFound):
            self.overtaken += 1
            return False
        await self._clear(record)
        self.moved += 1
        return True

    async def complete(self, found: Record, tombstone: Tombstone) -> None:
        """See to it that the record is in the next store whose tombstone was found in the former.

        Raises:
            RecordNotFound: The session has ended there since, or expires now.
            StoreUnavailable: A store fails.
        """
        address = found.address
        for _ in range(ATTEMPTS):
            there = await self._next.load(address)
            if (
                there is not None
                and 0 < found.epoch - there.epoch <= MOST_BEHIND
                and (not is_placeholder(there) or tombstone.awaited_by(there))
            ):
                await self.catch_up(there, found.epoch)
                continue
            if there is not None and not is_placeholder(there):
                await self._clear(found)
                return
            if there is None or not tombstone.awaited_by(there):
                try:
                    await self._former.delete(address, epoch=found.epoch)
                except StaleEpoch:
                    # Another has completed it, and somebody has moved it back since: this is no news of it.
                    raise contended(address) from None
                raise RecordNotFound(address)
            # A tombstone is there for a moment after what it stands for has expired: as long as its save took.
            left = self._left(address, tombstone.expires)
            with suppress(StaleEpoch, RecordNotFound):
                # The placeholder's epoch is the tombstone's, or a higher one where somebody has claimed it.
                await self._next.save(
                    address,
                    epoch=there.epoch,
                    version=tombstone.version,
                    snapshot=tombstone.snapshot,
                    ttl=left,
                )
                self.completed += 1
        raise contended(address)

    async def catch_up(self, there: Record, epoch: int) -> None:
        """Have what the next store has go on from `epoch`, up to which claims have raised a mark in the former.

        The mark is deleted under that epoch, and that call may be late: what is there by then, if somebody moves the
        session back, must have another. By claims, as these bring nothing back that has ended.
        """
        with suppress(RecordNotFound):
            while 0 < epoch - there.epoch <= MOST_BEHIND:
                there = await self._next.claim(there.address, owner=MOVER)

    async def _hold_place(self, record: Record) -> bool:
        """Whether the next store has the placeholder now."""
        address = record.address
        place = placeholder(record)
        over: tuple[int, int] | None = None
        for _ in range(ATTEMPTS):
            try:
                await self._next.adopt(place, over=over)
            except RecordExists:
                there = await self._next.load(address)
                if there is None:
                    over = None
                    continue
                if there.epoch >= record.epoch:
                    return False
                # A placeholder of a move that was overtaken; a copy; or what has come back from there has left it. What
                # the former store has is what counts.
                over = (there.epoch, there.version)
            else:
                # Another's, which a claim has raised to this very epoch, is taken for ours: that `adopt` was repeated.
                there = await self._next.load(address)
                return there is not None and there.snapshot == place.snapshot
        raise contended(address)

    async def _clear(self, found: Record) -> None:
        # Best effort: who meets the tombstone again clears it away. Under its epoch, so that a late call takes nothing
        # else that may be there by then.
        with suppress(StoreError):
            await self._former.delete(found.address, epoch=found.epoch)

    def _left(self, address: Address, expires: float) -> float:
        left = expires - self._clock()
        if left <= 0:
            raise RecordNotFound(address)
        return left


def contended(address: Address) -> StoreUnavailable:
    """Others get there first all the time."""
    return StoreUnavailable(
        f"{address} is claimed by others all the time while it is moved to another store; try again",
        outcome_unknown=True,
        retry_after=0.2,
    )
