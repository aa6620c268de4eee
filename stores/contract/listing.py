"""The store contract, part three: walking over all records, and sweeping the expired ones away."""

from __future__ import annotations

import pytest

from ..address import Address
from ..record import Record, RecordInfo
from .case import ContractCase

__all__ = ["ListingContract"]

NOT_CURSORS = (
    "",
    "0",
    "nonsense",
    "-1",
    "99999999999999999999999999",
    "\0",
    "\u00e9",
    "x" * 10_000,
    "memory-",
    "sqlite-",
    "{}",
)


class ListingContract(ContractCase):
    """Many records."""

    async def test_an_empty_store_lists_nothing(self) -> None:
        async with self.opened() as store:
            page = await store.list()
            assert (page.records, page.cursor) == ((), None)

    async def test_the_list_shows_each_record_without_its_snapshot(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.claim(address, owner="node-2")
            record = await self.loaded(store, address)
            (info,) = (await store.list()).records
            assert isinstance(info, RecordInfo)
            assert not isinstance(info, Record)
            for name in ("address", "tenant", "epoch", "version", "owner", "created", "updated", "expires"):
                assert getattr(info, name) == getattr(record, name), name

    @pytest.mark.parametrize("limit", [1, 2, 7, 24, 25, 26, 1000])
    async def test_the_pages_together_hold_each_record_once(self, limit: int) -> None:
        async with self.opened() as store:
            addresses = {await self.new(store) for _ in range(25)}
            listed = [info.address for info in await self.walk(store, limit=limit)]
            assert len(listed) == 25
            assert set(listed) == addresses

    async def test_the_order_is_stable(self) -> None:
        async with self.opened() as store:
            for _ in range(12):
                await self.new(store)
            first = [info.address for info in await self.walk(store, limit=5)]
            for address in first[::2]:
                await store.claim(address, owner="node-2")
                await store.save(address, epoch=2, version=2, snapshot=b"two", ttl=60.0)
            assert [info.address for info in await self.walk(store, limit=3)] == first

    async def test_a_record_that_is_there_during_the_walk_appears_once_whatever_changes_around_it(self) -> None:
        async with self.opened() as store:
            steady: list[Address] = []
            doomed: list[Address] = []
            for _ in range(20):  # in turn, so that records go on both sides of the cursor
                doomed.append(await self.new(store))
                steady.append(await self.new(store))
            seen: list[Address] = []
            cursor: str | None = None
            for _ in range(1_000):
                page = await store.list(cursor=cursor, limit=3)
                seen.extend(info.address for info in page.records)
                cursor = page.cursor
                if cursor is None:
                    break
                await self.new(store)
                if doomed:
                    await store.delete(doomed.pop())
                if doomed:
                    await store.delete(doomed.pop(0))
                address = steady[len(seen) % len(steady)]
                epoch = (await store.claim(address, owner="node-2")).epoch
                await store.touch(address, epoch=epoch, ttl=70_000.0)
                if len(seen) > 200:
                    break
            assert [seen.count(address) for address in steady] == [1] * len(steady)
            assert len(seen) == len(set(seen))

    async def test_a_tenant_sees_its_own_records_only(self) -> None:
        tenants = ("acme", "Acme", "acme2", "acm", "", "acme%", "_cme", "\u79df\u6237")
        async with self.opened() as store:
            own = {tenant: {await self.new(store, tenant=tenant) for _ in range(3)} for tenant in tenants}
            for tenant in tenants:
                listed = await self.walk(store, tenant=tenant, limit=2)
                assert {info.tenant for info in listed} == {tenant}
                assert sorted(info.address for info in listed) == sorted(own[tenant])
            assert await self.walk(store, tenant="nobody") == []
            assert len(await self.walk(store, limit=5)) == 3 * len(tenants)

    async def test_an_expired_record_is_not_listed(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await self.expired(store)
            assert [info.address for info in await self.walk(store)] == [address]
            assert [info.address for info in await self.walk(store, tenant="acme", limit=1)] == [address]

    @pytest.mark.parametrize("limit", [0, -1, 1001])
    async def test_a_limit_out_of_range_is_refused(self, limit: int) -> None:
        async with self.opened() as store:
            with pytest.raises(ValueError, match="limit"):
                await store.list(limit=limit)

    @pytest.mark.parametrize("cursor", NOT_CURSORS)
    async def test_a_cursor_of_somebody_else_is_refused(self, cursor: str) -> None:
        async with self.opened() as store:
            await self.new(store)
            with pytest.raises(ValueError, match="cursor"):
                await store.list(cursor=cursor)

    async def test_a_sweep_takes_no_more_than_its_limit(self) -> None:
        async with self.opened() as store:
            for _ in range(7):
                await self.new(store, ttl=self.lifetime)
            await self.pass_time(self.lifetime * 1.1)
            swept = [await store.expire(limit=3) for _ in range(4)]
            assert max(swept) <= 3
            if self.sweeps:
                assert swept == [3, 3, 1, 0]

    async def test_a_sweep_takes_expired_records_only(self) -> None:
        async with self.opened() as store:
            kept = await self.new(store)
            touched = await self.new(store, ttl=self.lifetime)
            await store.touch(touched, epoch=1, ttl=100_000.0)
            saved = await self.new(store, ttl=self.lifetime)
            await store.save(saved, epoch=1, version=2, snapshot=b"two", ttl=100_000.0)
            shortened = await self.new(store)
            await store.touch(shortened, epoch=1, ttl=self.lifetime)
            assert await store.expire() == 0
            await self.expired(store)
            swept = await store.expire()
            assert swept == 2 or not self.sweeps
            assert {info.address for info in await self.walk(store)} == {kept, touched, saved}
            assert await store.expire() == 0
