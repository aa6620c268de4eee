"""Mistakes in moving a session that the simulation must find."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from understudy.stores import Address, Record, RecordExists, RecordNotFound, StaleEpoch
from understudy.stores.moving import FollowingStore, MovingStore
from understudy.stores.moving import passage as passages
from understudy.stores.moving.marks import Tombstone, is_placeholder
from understudy.stores.moving.pair import StorePair
from understudy.stores.moving.passage import Passage

Patch = Callable[[Any, str, Any], None]

MUTATIONS: dict[str, Callable[[Patch], None]] = {}


def mutation(what: str) -> Callable[[Callable[[Patch], None]], None]:
    def add(apply: Callable[[Patch], None]) -> None:
        MUTATIONS[what] = apply

    return add


@contextmanager
def mutated(what: str) -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[what](patch.setattr)
        yield


@mutation("the tombstone is forgotten: the record is deleted, and then put there")
def _(patch: Patch) -> None:
    async def move(self: Any, record: Record) -> bool:
        with suppress(StaleEpoch):
            await self._former.delete(record.address, epoch=record.epoch)
            await self._next.adopt(record)
            return True
        return False

    patch(Passage, "move", move)


@mutation("the record is put there before the former store says that it may leave")
def _(patch: Patch) -> None:
    async def move(self: Any, record: Record) -> bool:
        with suppress(StaleEpoch, RecordExists):
            await self._next.adopt(record)
            await self._former.delete(record.address, epoch=record.epoch)
            return True
        return False

    patch(Passage, "move", move)


@mutation("no placeholder: the record is adopted where there is none")
def _(patch: Patch) -> None:
    async def hold_place(self: Any, record: Record) -> bool:
        return True

    async def complete(self: Any, found: Record, tombstone: Tombstone) -> None:
        with suppress(RecordExists):
            await self._next.adopt(tombstone.record(found))
        await self._clear(found)

    async def move(self: Any, record: Record) -> bool:
        tombstone = Tombstone.of(record)
        try:
            await self._former.save(
                record.address,
                epoch=record.epoch,
                version=record.version + 1,
                snapshot=tombstone.pack(),
                ttl=record.expires - self._clock(),
            )
        except (StaleEpoch, RecordNotFound):
            return False
        await complete(self, record, tombstone)
        return True

    patch(Passage, "_hold_place", hold_place)
    patch(Passage, "complete", complete)
    patch(Passage, "move", move)


@mutation("the placeholder is put over whatever is there")
def _(patch: Patch) -> None:
    async def hold_place(self: Any, record: Record) -> bool:
        there = await self._next.load(record.address)
        over = None if there is None else (there.epoch, there.version)
        with suppress(RecordExists):
            await self._next.adopt(passages.placeholder(record), over=over)
            return True
        return False

    patch(Passage, "_hold_place", hold_place)


@mutation("a tombstone is not saved under the claim's epoch, but over any")
def _(patch: Patch) -> None:
    real = Passage.move

    async def move(self: Any, record: Record) -> bool:
        latest = await self._former.load(record.address)
        return await real(self, record if latest is None else replace(record, epoch=latest.epoch))

    patch(Passage, "move", move)


@mutation("the record is not claimed before it is moved")
def _(patch: Patch) -> None:
    async def bring(self: Any, address: Address) -> bool:
        record = await self.former.load(address)
        if record is None:
            return False
        tombstone = Tombstone.found_in(record)
        if tombstone is not None:
            await self.passage.complete(record, tombstone)
            return True
        return await self.passage.move(record)

    patch(MovingStore, "bring", bring)


@mutation("epochs begin anew")
def _(patch: Patch) -> None:
    real = passages.placeholder
    patch(passages, "placeholder", lambda record: replace(real(record), epoch=1))
    of = Tombstone.of
    patch(Tombstone, "of", classmethod(lambda cls, record: replace(of(record), epoch=1)))

    async def move(self: Any, record: Record) -> bool:
        if not await self._hold_place(record):
            return False
        tombstone = Tombstone.of(record)
        ttl = record.expires - self._clock()
        with suppress(StaleEpoch, RecordNotFound):
            await self._former.save(
                record.address, epoch=record.epoch, version=record.version + 1, snapshot=tombstone.pack(), ttl=ttl
            )
            await self._next.save(record.address, epoch=1, version=record.version, snapshot=record.snapshot, ttl=ttl)
            await self._clear(record)
            return True
        return False

    patch(Passage, "move", move)


@mutation("who follows does not look in the next store")
def _(patch: Patch) -> None:
    async def claim_in_next(self: Any, address: Address, owner: str) -> Record:
        raise RecordNotFound(address)

    patch(FollowingStore, "_claim_in_next", claim_in_next)


@mutation("who follows takes a tombstone for a session")
def _(patch: Patch) -> None:
    async def claim(self: Any, address: Address, *, owner: str) -> Record:
        try:
            return await self.former.claim(address, owner=owner)
        except RecordNotFound:
            return await self._claim_in_next(address, owner)

    patch(FollowingStore, "claim", claim)


@mutation("who follows does not complete a move")
def _(patch: Patch) -> None:
    async def complete(self: Any, found: Record, tombstone: Tombstone) -> None:
        pass

    patch(Passage, "complete", complete)


@mutation("who follows writes to the former store whoever gave the epoch out")
def _(patch: Patch) -> None:
    async def is_in_next(self: Any, address: Address, epoch: int) -> bool:
        return False

    patch(FollowingStore, "_is_in_next", is_in_next)


@mutation("who follows takes what it does not know for the former store's")
def _(patch: Patch) -> None:
    async def is_in_next(self: Any, address: Address, epoch: int) -> bool:
        known = self._known.get(address)
        return known is not None and known[0] == epoch and known[1]

    patch(FollowingStore, "_is_in_next", is_in_next)


@mutation("a writer whose session has moved is told that it is gone")
def _(patch: Patch) -> None:
    async def require_not_moved(self: Any, address: Address, epoch: int) -> None:
        pass

    patch(FollowingStore, "_require_not_moved", require_not_moved)


@mutation("an end deletes the record, and not what a mover has put into the next store")
def _(patch: Patch) -> None:
    async def delete_anywhere(self: Any, address: Address) -> bool:
        return await self.former.delete(address) or await self.next.delete(address)

    patch(StorePair, "_delete_anywhere", delete_anywhere)


@mutation("a session that has ended in the next store is put there again")
def _(patch: Patch) -> None:
    async def complete(self: Any, found: Record, tombstone: Tombstone) -> None:
        there = await self._next.load(found.address)
        if there is not None and is_placeholder(there):
            with suppress(StaleEpoch, RecordNotFound):
                await self._next.save(
                    found.address,
                    epoch=there.epoch,
                    version=tombstone.version,
                    snapshot=tombstone.snapshot,
                    ttl=tombstone.expires - self._clock(),
                )
        if there is None:
            with suppress(RecordExists):
                await self._next.adopt(tombstone.record(found))
        await self._clear(found)

    patch(Passage, "complete", complete)


@mutation("the tombstone goes before the record is there")
def _(patch: Patch) -> None:
    real = Passage.complete

    async def complete(self: Any, found: Record, tombstone: Tombstone) -> None:
        await self._clear(found)
        await real(self, found, tombstone)

    patch(Passage, "complete", complete)


@mutation("a placeholder passes for a session")
def _(patch: Patch) -> None:
    async def claim_in_next(self: Any, address: Address, owner: str) -> Record:
        return await self.next.claim(address, owner=owner)

    patch(StorePair, "claim_in_next", claim_in_next)


@mutation("new sessions of those who move are in the former store")
def _(patch: Patch) -> None:
    async def create(self: Any, address: Address, **new: Any) -> Record:
        return await self.former.create(address, **new)

    patch(MovingStore, "create", create)


@mutation("the next store is listed first")
def _(patch: Patch) -> None:
    async def list(self: Any, *, tenant: Any = None, cursor: str | None = None, limit: int = 100) -> Any:
        mark = cursor or "next-"
        store = self.next if mark.startswith("next-") else self.former
        page = await store.list(tenant=tenant, cursor=mark.partition("-")[2] or None, limit=limit)
        prefix = mark.partition("-")[0]
        if page.cursor is not None:
            return replace(page, cursor=f"{prefix}-{page.cursor}")
        return replace(page, cursor="former-" if prefix == "next" else None)

    patch(StorePair, "list", list)


@mutation("a list leaves out what is being moved")
def _(patch: Patch) -> None:
    async def holds(self: Any, address: Address) -> bool:
        return False

    patch(StorePair, "holds", holds)
