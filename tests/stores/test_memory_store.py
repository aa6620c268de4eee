"""`MemoryStore`: the contract, and what is its own."""

from __future__ import annotations

import pytest
from hypothesis import settings
from understudy.stores import Address, MemoryStore, SessionStore, StoreUnavailable
from understudy.stores.testing import ManualTime, StoreContract, store_machine


class TestMemoryStoreKeepsTheContract(StoreContract):
    async def open_store(self, clock: ManualTime) -> SessionStore:
        return MemoryStore(clock)


async def _open(clock: ManualTime) -> SessionStore:
    return MemoryStore(clock)


TestMemoryStoreAgainstTheModel = store_machine(_open, settings=settings(max_examples=60, deadline=None))


async def test_at_the_bound_of_records_a_creation_is_refused_until_one_goes() -> None:
    clock = ManualTime()
    store = MemoryStore(clock, max_records=2)
    first, second, third = (Address.new("session") for _ in range(3))
    await _create(store, first, ttl=10.0)
    await _create(store, second, ttl=20.0)
    with pytest.raises(StoreUnavailable, match="holds 2 records") as caught:
        await _create(store, third)
    assert caught.value.outcome_unknown is False
    clock.advance(10.0)
    await _create(store, third)
    assert store.stats()["records"] == 2


async def test_at_the_bound_of_bytes_a_growing_save_is_refused_and_a_shrinking_one_is_not() -> None:
    store = MemoryStore(ManualTime(), max_bytes=100)
    address, other = Address.new("session"), Address.new("session")
    await _create(store, address, snapshot=b"x" * 60)
    with pytest.raises(StoreUnavailable, match="60 of 100 bytes"):
        await _create(store, other, snapshot=b"x" * 41)
    with pytest.raises(StoreUnavailable, match="60 of 100 bytes") as caught:
        await store.save(address, epoch=1, version=2, snapshot=b"x" * 101, ttl=60.0)
    assert caught.value.outcome_unknown is False
    await store.save(address, epoch=1, version=2, snapshot=b"x" * 50, ttl=60.0)
    await _create(store, other, snapshot=b"x" * 50)


async def test_the_bytes_are_counted_through_every_change() -> None:
    clock = ManualTime()
    store = MemoryStore(clock)
    address, other = Address.new("session"), Address.new("session")
    await _create(store, address, snapshot=b"12345")
    await _create(store, other, snapshot=b"123", ttl=1.0)
    await store.save(address, epoch=1, version=2, snapshot=b"1234567", ttl=60.0)
    assert store.stats() == {"records": 2, "snapshot_bytes": 10}
    clock.advance(1.0)
    assert await store.expire() == 1
    assert store.stats() == {"records": 1, "snapshot_bytes": 7}
    await store.delete(address)
    assert store.stats() == {"records": 0, "snapshot_bytes": 0}


@pytest.mark.parametrize("text", ["nul\0", "\ud800", "x" * 1025])
async def test_a_tenant_or_owner_that_not_every_store_can_keep_is_refused(text: str) -> None:
    store = MemoryStore(ManualTime())
    address = Address.new("session")
    with pytest.raises(ValueError, match="tenant"):
        await store.create(address, tenant=text, owner="node-1", snapshot=b"", ttl=60.0)
    with pytest.raises(ValueError, match="owner"):
        await store.create(address, tenant="acme", owner=text, snapshot=b"", ttl=60.0)
    await _create(store, address)
    with pytest.raises(ValueError, match="owner"):
        await store.claim(address, owner=text)
    record = await store.load(address)
    assert record is not None
    assert record.epoch == 1


async def _create(store: MemoryStore, address: Address, *, snapshot: bytes = b"one", ttl: float = 60.0) -> None:
    await store.create(address, tenant="acme", owner="node-1", snapshot=snapshot, ttl=ttl)
