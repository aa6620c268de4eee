"""The store contract, part one: what a record is, how it comes, changes, expires and goes."""

from __future__ import annotations

import os

import pytest

from ..address import Address
from ..errors import RecordExists, RecordNotFound
from ..store import SessionStore
from .case import ContractCase

__all__ = ["RecordsContract"]

SNAPSHOTS = {
    "empty": b"",
    "one NUL": b"\0",
    "every byte": bytes(range(256)),
    "not UTF-8": b"\xff\xfe\xc0\x80",
    "1 MiB": os.urandom(1024) * 1024,
}

IDS = ("a", "A", "x" * 128, "';DROP_TABLE_records;--", '"', "%", "_", "a/b/c", "*", ":?#[]@!$&()", "\\", "~")

TENANTS = (
    "",
    " ",
    "acme",
    "Acme",
    "acme ",
    "acme%",
    "ac_e",
    "o'hara",
    '"',
    "\u79df\u6237",
    "e\u0301",
    "\u00e9",
    "\U0001f3ad",
    "t" * 256,
)


class RecordsContract(ContractCase):
    """One record and one writer."""

    async def test_the_store_is_a_session_store(self) -> None:
        async with self.opened() as store:
            assert isinstance(store, SessionStore)
            assert store.shared in (True, False)

    async def test_create_returns_the_record_as_it_is_stored(self) -> None:
        async with self.opened() as store:
            address = Address.new("session")
            now = self.clock()
            record = await store.create(address, tenant="acme", owner="node-1", snapshot=b"one", ttl=60.0)
            assert (record.address, record.tenant, record.owner) == (address, "acme", "node-1")
            assert (record.epoch, record.version, record.snapshot) == (1, 1, b"one")
            assert (record.created, record.updated) == (self.near(now), self.near(now))
            assert record.expires == self.near(now + 60.0)
            assert await store.load(address) == record

    async def test_create_does_not_touch_a_record_that_is_there(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            before = await self.loaded(store, address)
            with pytest.raises(RecordExists) as caught:
                await store.create(address, tenant="other", owner="node-2", snapshot=b"two", ttl=5.0)
            assert caught.value.address == address
            assert await store.load(address) == before

    async def test_the_same_id_under_two_kinds_is_two_records(self) -> None:
        async with self.opened() as store:
            session = await self.new(store, address=Address("session", "same"), snapshot=b"session")
            task = await self.new(store, address=Address("task", "same"), snapshot=b"task")
            await store.claim(task, owner="node-2")
            assert (await self.loaded(store, session)).epoch == 1
            assert (await self.loaded(store, session)).snapshot == b"session"

    async def test_nothing_is_at_an_address_where_nothing_was_created(self) -> None:
        async with self.opened() as store:
            await self._is_gone(store, Address.new("session"))

    async def test_a_save_replaces_the_snapshot_and_renews_the_record(self) -> None:
        async with self.opened() as store:
            address = await self.new(store, ttl=50_000.0)
            before = await self.loaded(store, address)
            self.clock.advance(10.0)
            now = self.clock()
            assert await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=70_000.0) is None
            after = await self.loaded(store, address)
            assert (after.epoch, after.version, after.snapshot) == (1, 2, b"two")
            assert (after.updated, after.expires) == (self.near(now), self.near(now + 70_000.0))
            assert (after.tenant, after.owner, after.created) == (before.tenant, before.owner, before.created)

    async def test_a_save_may_shorten_the_life_of_a_record(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=self.lifetime)
            await self.pass_time(self.lifetime * 1.1)
            assert await store.load(address) is None

    async def test_a_touch_moves_the_expiry_and_nothing_else(self) -> None:
        async with self.opened() as store:
            address = await self.new(store, ttl=self.lifetime)
            before = await self.loaded(store, address)
            await self.pass_time(self.lifetime / 2)
            now = self.clock()
            assert await store.touch(address, epoch=1, ttl=100_000.0) is None
            await self.pass_time(self.lifetime)
            after = await self.loaded(store, address)
            assert after.expires == self.near(now + 100_000.0)
            assert (after.epoch, after.version, after.updated) == (before.epoch, before.version, before.updated)
            assert (after.owner, after.snapshot) == (before.owner, before.snapshot)

    async def test_a_touch_may_shorten_the_life_of_a_record(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.touch(address, epoch=1, ttl=self.lifetime)
            await self.pass_time(self.lifetime * 1.1)
            assert await store.load(address) is None

    async def test_a_write_changes_no_other_record(self) -> None:
        async with self.opened() as store:
            address, neighbour = await self.new(store), await self.new(store)
            before = await self.loaded(store, neighbour)
            await store.claim(address, owner="node-2")
            await store.save(address, epoch=2, version=2, snapshot=b"two", ttl=9.0)
            await store.touch(address, epoch=2, ttl=8.0)
            await store.delete(address)
            assert await store.load(neighbour) == before

    async def test_delete_says_whether_a_record_was_there(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            assert await store.delete(address) is True
            assert await store.delete(address) is False
            await self._is_gone(store, address)

    async def test_a_deleted_record_can_be_created_anew(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.claim(address, owner="node-2")
            await store.delete(address)
            record = await store.create(address, tenant="other", owner="node-3", snapshot=b"new", ttl=60.0)
            assert (record.epoch, record.version, record.tenant) == (1, 1, "other")
            assert await store.load(address) == record

    async def test_a_record_lives_as_long_as_it_was_given(self) -> None:
        async with self.opened() as store:
            address = await self.new(store, ttl=self.lifetime)
            await self.pass_time(self.lifetime / 2)
            assert (await self.loaded(store, address)).snapshot == b"one"
            await self.pass_time(self.lifetime * 0.6)
            assert await store.load(address) is None

    async def test_an_expired_record_is_gone_for_every_method(self) -> None:
        async with self.opened() as store:
            await self._is_gone(store, await self.expired(store))

    async def test_a_claim_does_not_renew_a_record(self) -> None:
        async with self.opened() as store:
            address = await self.new(store, ttl=self.lifetime)
            await store.claim(address, owner="node-2")
            await self.pass_time(self.lifetime * 1.1)
            await self._is_gone(store, address)

    async def test_a_new_record_can_take_the_place_of_an_expired_one(self) -> None:
        async with self.opened() as store:
            address = await self.new(store, ttl=self.lifetime)
            await store.claim(address, owner="node-2")
            await self.pass_time(self.lifetime * 1.1)
            record = await store.create(address, tenant="other", owner="node-3", snapshot=b"new", ttl=100_000.0)
            assert (record.epoch, record.version, record.tenant, record.owner) == (1, 1, "other", "node-3")
            assert record.created == self.near(self.clock())
            assert await store.load(address) == record
            assert [info.address for info in await self.walk(store)] == [address]

    @pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan"), float("-inf")])
    async def test_a_lifetime_must_be_above_zero(self, ttl: float) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            before = await self.loaded(store, address)
            with pytest.raises(ValueError, match="ttl"):
                await store.create(Address.new("session"), tenant="acme", owner="node-1", snapshot=b"", ttl=ttl)
            with pytest.raises(ValueError, match="ttl"):
                await store.save(address, epoch=1, version=2, snapshot=b"", ttl=ttl)
            with pytest.raises(ValueError, match="ttl"):
                await store.touch(address, epoch=1, ttl=ttl)
            assert await store.load(address) == before
            assert len(await self.walk(store)) == 1

    @pytest.mark.parametrize("snapshot", SNAPSHOTS.values(), ids=SNAPSHOTS.keys())
    async def test_a_snapshot_comes_back_byte_for_byte(self, snapshot: bytes) -> None:
        async with self.opened() as store:
            created = await self.new(store, snapshot=snapshot)
            saved = await self.new(store)
            await store.save(saved, epoch=1, version=2, snapshot=snapshot, ttl=60.0)
            for address in (created, saved):
                loaded = await self.loaded(store, address)
                claimed = await store.claim(address, owner="node-2")
                assert loaded.snapshot == claimed.snapshot == snapshot
                assert type(loaded.snapshot) is type(claimed.snapshot) is bytes

    async def test_every_legal_id_names_a_record_of_its_own(self) -> None:
        async with self.opened() as store:
            for id in IDS:
                await self.new(store, address=Address.checked("session", id), snapshot=id.encode())
            for id in IDS:
                assert (await store.claim(Address("session", id), owner="node-2")).snapshot == id.encode()
            assert {info.address.id for info in await self.walk(store)} == set(IDS)

    async def test_a_tenant_and_an_owner_come_back_as_they_were(self) -> None:
        async with self.opened() as store:
            for tenant in TENANTS:
                address = await self.new(store, tenant=tenant)
                record = await store.claim(address, owner=f"node {tenant}")
                assert (record.tenant, record.owner) == (tenant, f"node {tenant}")

    async def _is_gone(self, store: SessionStore, address: Address) -> None:
        assert await store.load(address) is None
        assert await store.delete(address) is False
        assert await store.delete(address, epoch=1) is False
        with pytest.raises(RecordNotFound) as caught:
            await store.claim(address, owner="node-2")
        assert caught.value.address == address
        with pytest.raises(RecordNotFound):
            await store.save(address, epoch=1, version=2, snapshot=b"late", ttl=60.0)
        with pytest.raises(RecordNotFound):
            await store.save(address, epoch=1, version=1, snapshot=b"repeat", ttl=60.0)
        with pytest.raises(RecordNotFound):
            await store.touch(address, epoch=1, ttl=60.0)
        assert address not in [info.address for info in await self.walk(store)]
        assert await store.load(address) is None
