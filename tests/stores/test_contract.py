"""The contract suite itself: each of these stores breaks one sentence of the contract, and the suite must say so."""

from __future__ import annotations

import asyncio
import inspect
import unittest
from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from understudy.stores import Address, MemoryStore, Page, Record, RecordExists, RecordNotFound, StaleEpoch, StoreError
from understudy.stores.testing import ManualTime, StoreContract, store_machine


class _LetsStaleOwnersSave(MemoryStore):
    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        record = await self.load(address)
        epoch = epoch if record is None else record.epoch
        await super().save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)


class _LetsStaleOwnersTouch(MemoryStore):
    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        record = await self.load(address)
        await super().touch(address, epoch=epoch if record is None else record.epoch, ttl=ttl)


class _LetsStaleOwnersDelete(MemoryStore):
    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        return await super().delete(address)


class _RefusesARepeatedSave(MemoryStore):
    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        record = await self.load(address)
        if record is not None and record.version == version:
            raise StaleEpoch(address, held=epoch, stored=record.epoch)
        await super().save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)


class _WritesARepeatedSave(MemoryStore):
    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        await super().save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)
        self._entries[address].snapshot = snapshot


class _AcceptsGaps(MemoryStore):
    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        record = await self.load(address)
        if record is not None and record.epoch == epoch and version > record.version:
            self._entries[address].version = version - 1
        await super().save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)


class _ReadsAndThenClaims(MemoryStore):
    async def claim(self, address: Address, *, owner: str) -> Record:
        record = await self.load(address)
        await asyncio.sleep(0)
        await super().claim(address, owner=owner)
        return (
            replace(record, epoch=record.epoch + 1, owner=owner)
            if record
            else await super().claim(address, owner=owner)
        )


class _CreatesOver(MemoryStore):
    async def create(self, address: Address, **new: object) -> Record:
        try:
            return await super().create(address, **new)  # type: ignore[arg-type]
        except RecordExists:
            await self.delete(address)
            return await super().create(address, **new)  # type: ignore[arg-type]


class _ClaimsTheExpired(MemoryStore):
    async def claim(self, address: Address, *, owner: str) -> Record:
        try:
            return await super().claim(address, owner=owner)
        except RecordNotFound:
            if address not in self._entries:
                raise
            return self._entries[address].record(address)


class _RenewsByClaim(MemoryStore):
    async def claim(self, address: Address, *, owner: str) -> Record:
        record = await super().claim(address, owner=owner)
        await self.touch(address, epoch=record.epoch, ttl=500_000.0)
        return record


class _ListsTheExpired(MemoryStore):
    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        clock, self._clock = self._clock, lambda: 0.0
        try:
            return await super().list(tenant=tenant, cursor=cursor, limit=limit)
        finally:
            self._clock = clock


class _ListsByOffset(MemoryStore):
    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        await super().list(cursor=cursor, limit=limit)  # for its refusals
        start = 0 if cursor is None else int(cursor.removeprefix("memory-"), 16)
        every = (await super().list(tenant=tenant, limit=1000)).records
        return Page(every[start : start + limit], f"memory-{start + limit:x}" if start + limit < len(every) else None)


class _SweepsTheLiving(MemoryStore):
    async def expire(self, *, limit: int = 1000) -> int:
        now = self._clock()
        for entry in self._entries.values():
            if entry.expires <= now + 200_000.0:
                entry.expires = self._soonest = now
        return await super().expire(limit=limit)


class _ForgetsTheTenant(MemoryStore):
    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        return await super().list(cursor=cursor, limit=limit)


BROKEN = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and value.__name__.startswith("_") and issubclass(value, MemoryStore)
]


@pytest.mark.parametrize("broken", BROKEN, ids=[store.__name__[1:] for store in BROKEN])
async def test_the_suite_finds_a_store_that_breaks_the_contract(broken: type[MemoryStore]) -> None:
    class Suite(StoreContract):
        async def open_store(self, clock: ManualTime) -> MemoryStore:
            return broken(clock)

    assert await _first_failure(Suite) is not None


async def test_the_suite_has_nothing_against_a_store_that_keeps_the_contract() -> None:
    class Suite(StoreContract):
        async def open_store(self, clock: ManualTime) -> MemoryStore:
            return MemoryStore(clock)

    assert await _first_failure(Suite) is None


SEEN_BY_ONE_CALLER = [store for store in BROKEN if store is not _ReadsAndThenClaims and store is not _ListsByOffset]
"""A machine makes one call at a time."""


@pytest.mark.parametrize("broken", SEEN_BY_ONE_CALLER, ids=[store.__name__[1:] for store in SEEN_BY_ONE_CALLER])
def test_the_machine_finds_a_store_that_breaks_the_contract(broken: type[MemoryStore]) -> None:
    async def open_store(clock: ManualTime) -> MemoryStore:
        return broken(clock)

    quick = settings(max_examples=300, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    case = store_machine(open_store, settings=quick)
    result = unittest.TestResult()
    case("runTest").run(result)
    assert result.failures or result.errors


async def _first_failure(suite: type[StoreContract]) -> str | None:
    for name, test in inspect.getmembers(suite, inspect.iscoroutinefunction):
        if not name.startswith("test_") or len(inspect.signature(test).parameters) > 1:
            continue
        case = suite()
        case.setup_method()
        try:
            await test(case)
        except (AssertionError, StoreError, ValueError, pytest.fail.Exception):
            return name
        except pytest.skip.Exception:
            pass
    return None
