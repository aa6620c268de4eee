"""`FollowingStore`: the first step of a move. All is done in the former store, and what has moved is found."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..address import Address
from ..errors import RecordExists, RecordNotFound, StaleEpoch, StoreUnavailable
from ..record import Record
from ..store import SessionStore
from .marks import Tombstone, is_placeholder
from .pair import StorePair

__all__ = ["FollowingStore"]

MAX_KNOWN: Final = 131_072


class FollowingStore(StorePair):
    """A `SessionStore` for nodes whose sessions are in `former`, beside others that move sessions to `next` already.

    Nothing is put into `next` here, but for sessions that are there, and nothing is moved. A call costs what it costs
    in `former`; a session that is not there is looked for in `next`.

    Args:
        max_known: Records of which it is remembered which store they were claimed in; for others it is looked up, a
            load each.
    """

    moves = False

    def __init__(
        self,
        former: SessionStore,
        next: SessionStore,
        *,
        clock: Callable[[], float] = time.time,
        max_known: int = MAX_KNOWN,
    ) -> None:
        if max_known < 1:
            raise ValueError(f"max_known {max_known} must be at least 1")
        super().__init__(former, next, clock=clock)
        self._max_known = max_known
        self._known: OrderedDict[Address, tuple[int, bool]] = OrderedDict()
        """The epoch under which a record was last claimed here, and whether that was in the next store."""

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`. In `former`."""
        await self._require_none_in_next(address)
        try:
            record = await self.former.create(address, tenant=tenant, owner=owner, snapshot=snapshot, ttl=ttl)
        except RecordExists:
            if await self.holds(address):
                raise
            # It was a tombstone of a session that has ended.
            record = await self.former.create(address, tenant=tenant, owner=owner, snapshot=snapshot, ttl=ttl)
        try:
            # Once more: a node that moves sessions, and created this one meanwhile, looks here after that. So not both
            # of them go on.
            await self._require_none_in_next(address)
        except RecordExists:
            with suppress(StaleEpoch):
                await self.former.delete(address, epoch=record.epoch)
            raise
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), outcome_unknown=True, retry_after=error.retry_after) from error
        self._remember(record, in_next=False)
        return record

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`."""
        try:
            record = await self.former.claim(address, owner=owner)
        except RecordNotFound:
            return await self._claim_in_next(address, owner)
        if is_placeholder(record):
            return await self._claim_in_next(address, owner)
        tombstone = Tombstone.found_in(record)
        if tombstone is not None:
            await self.passage.complete(record, tombstone)
            return await self._claim_in_next(address, owner)
        self._remember(record, in_next=False)
        return record

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`."""
        if await self._is_in_next(address, epoch):
            await self.next.save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)
            return
        try:
            await self.former.save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)
        except RecordNotFound:
            await self._require_not_moved(address, epoch)
            raise

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        if await self._is_in_next(address, epoch):
            await self.next.touch(address, epoch=epoch, ttl=ttl)
            return
        try:
            await self.former.touch(address, epoch=epoch, ttl=ttl)
        except RecordNotFound:
            await self._require_not_moved(address, epoch)
            raise

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        if epoch is None:
            gone = await self._delete_anywhere(address)
        elif await self._is_in_next(address, epoch):
            gone = await self.next.delete(address, epoch=epoch)
        else:
            gone = await self.former.delete(address, epoch=epoch)
            if not gone:
                await self._require_not_moved(address, epoch)
        self._known.pop(address, None)
        return gone

    async def ping(self) -> None:
        """See `SessionStore.ping`. The former must answer: what it has is served while the next one is away."""
        await self.former.ping()

    async def aclose(self) -> None:
        """Close both."""
        await super().aclose()
        self._known.clear()

    async def _claim_in_next(self, address: Address, owner: str) -> Record:
        record = await self.claim_in_next(address, owner)
        self._remember(record, in_next=True)
        return record

    async def _is_in_next(self, address: Address, epoch: int) -> bool:
        """Which store has given `epoch` out.

        A tombstone has an epoch too, perhaps the same: where it is not known, the former store must not be asked to
        write before it is clear that it has a session's record. If that moves meanwhile, its epoch is another.
        """
        known = self._known.get(address)
        if known is not None and known[0] == epoch:
            self._known.move_to_end(address)
            return known[1]
        found = await self.former.load(address)
        return found is None or is_placeholder(found) or Tombstone.found_in(found) is not None

    async def _require_none_in_next(self, address: Address) -> None:
        there = await self.next.load(address)
        if there is not None and not is_placeholder(there):
            raise RecordExists(address)

    async def _require_not_moved(self, address: Address, epoch: int) -> None:
        """The former store has no record: it may have gone to the next one, under a later epoch."""
        there = await self.next.load(address)
        if there is not None and not is_placeholder(there):
            raise StaleEpoch(address, held=epoch, stored=there.epoch)

    def _remember(self, record: Record, *, in_next: bool) -> None:
        known = self._known
        known[record.address] = (record.epoch, in_next)
        known.move_to_end(record.address)
        if len(known) > self._max_known:
            known.popitem(last=False)
