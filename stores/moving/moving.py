"""`MovingStore`: the second step of a move. New sessions are in the next store, and a claim brings the others there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from ..address import Address
from ..arguments import checked_text
from ..errors import RecordExists, RecordNotFound, StaleEpoch, StoreUnavailable
from ..record import Record
from ..store import SessionStore
from .marks import MOVER, Tombstone, is_placeholder
from .pair import StorePair
from .passage import ATTEMPTS, NextStore, Passage, contended

__all__ = ["MovingStore"]


class MovingStore(StorePair):
    """A `SessionStore` whose records are in `next`, or come there from `former` when they are claimed.

    Whoever holds a session here holds it in `next`, so all that goes on with one costs what it costs there. A claim
    asks `former` first; the one that moves a session makes five calls more.
    """

    moves = True

    def __init__(self, former: SessionStore, next: SessionStore, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(former, next, clock=clock)
        # For what somebody else has moved against this one; it only ever completes, which takes no `adopt`.
        self._returning = Passage(next, cast("NextStore", former), clock=clock)

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`. In `next`."""
        try:
            record = await self.next.create(address, tenant=tenant, owner=owner, snapshot=snapshot, ttl=ttl)
        except RecordExists:
            if not await self.clear_stray(address):
                raise
            record = await self.next.create(address, tenant=tenant, owner=owner, snapshot=snapshot, ttl=ttl)
        try:
            # Afterwards: a node that follows, and creates the same one meanwhile, looks there after that.
            there = await self.former.load(address)
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), outcome_unknown=True, retry_after=error.retry_after) from error
        if there is None:
            return record
        tombstone = Tombstone.found_in(there)
        if tombstone is not None:
            # There was nothing in the next store: it is of a session that has ended, and is cleared away.
            await self.passage.complete(there, tombstone)
            return record
        # Nobody can have claimed it: what the former store has is what everybody finds.
        with suppress(StaleEpoch):
            await self.next.delete(address, epoch=record.epoch)
        raise RecordExists(address)

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`. What the former store has is moved."""
        checked_text("owner", owner)
        await self.bring(address)
        return await self.claim_in_next(address, owner)

    async def bring(self, address: Address) -> bool:
        """See to it that a record is in the next store, unless there is none; whether the former store had it. It wakes
        nobody, but fences whoever held the record there.

        Raises:
            RecordNotFound: The session has ended, or expired, on its way.
            StoreUnavailable: A store fails.
        """
        for _ in range(ATTEMPTS):
            try:
                record = await self.former.claim(address, owner=MOVER)
            except RecordNotFound:
                return False
            if is_placeholder(record):
                if await self._clear_former(record):
                    continue
                return False
            tombstone = Tombstone.found_in(record)
            if tombstone is not None:
                await self.passage.complete(record, tombstone)
                return True
            if await self.passage.move(record):
                return True
        raise contended(address)

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`."""
        await self.next.save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        await self.next.touch(address, epoch=epoch, ttl=ttl)

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        if epoch is None:
            return await self._delete_anywhere(address)
        return await self.next.delete(address, epoch=epoch)

    async def clear_stray(self, address: Address) -> bool:
        """Whether what is in the way was a placeholder of a session that is gone. It is removed."""
        there = await self.next.load(address)
        if there is None:
            return True
        if not is_placeholder(there) or await self.former.load(address) is not None:
            return False
        await self._drop_placeholder(there)
        return True

    async def _clear_former(self, place: Record) -> bool:
        """A placeholder was claimed in the former store: of an earlier move to it, or of one against this one.
        False if it is gone, True if the former store is to be looked at again."""
        address = place.address
        try:
            # Whoever is about to move it there is refused from here on.
            there = await self.next.claim(address, owner=MOVER)
        except RecordNotFound:
            # Nothing is to come from there any more; something may just have come.
            found = await self.former.load(address)
            if found is None or not is_placeholder(found):
                return True
        else:
            tombstone = Tombstone.found_in(there)
            if tombstone is not None:
                # Half way there, the only way out is at the other end.
                await self._returning.complete(there, tombstone)
                return True
            if there.epoch < place.epoch:
                await self.passage.catch_up(there, place.epoch)
        with suppress(StaleEpoch):
            await self.former.delete(address, epoch=place.epoch)
        return False
