"""The store contract, part two: who may write. Proves the invariant one-writer of a single store."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from ..address import Address
from ..errors import RecordExists, StaleEpoch
from .case import ContractCase, needs_a_second_store

__all__ = ["WritersContract"]

ROUNDS = 20
"""Of each race."""


class WritersContract(ContractCase):
    """One record and several writers."""

    async def test_a_claim_raises_the_epoch_and_returns_the_record(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=500.0)
            before = await self.loaded(store, address)
            record = await store.claim(address, owner="node-2")
            assert (record.epoch, record.owner) == (2, "node-2")
            assert (record.version, record.snapshot, record.tenant) == (2, b"two", "acme")
            assert (record.created, record.updated, record.expires) == (
                before.created,
                before.updated,
                before.expires,
            )
            assert await store.load(address) == record

    async def test_an_owner_may_claim_again(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            assert [(await store.claim(address, owner="node-1")).epoch for _ in range(3)] == [2, 3, 4]

    async def test_loading_takes_no_part_in_ownership(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            for _ in range(3):
                assert (await self.loaded(store, address)).epoch == 1
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)

    async def test_a_stale_owner_cannot_save(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            claimed = await store.claim(address, owner="node-2")
            with pytest.raises(StaleEpoch) as caught:
                await store.save(address, epoch=1, version=2, snapshot=b"stale", ttl=60.0)
            assert (caught.value.address, caught.value.held, caught.value.stored) == (address, 1, 2)
            assert await store.load(address) == claimed

    async def test_a_stale_owner_cannot_repeat_its_last_save(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
            await store.claim(address, owner="node-2")
            with pytest.raises(StaleEpoch):
                await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)

    async def test_an_epoch_that_was_never_given_out_cannot_save(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            for epoch in (0, 2, 1_000_000):
                with pytest.raises(StaleEpoch):
                    await store.save(address, epoch=epoch, version=2, snapshot=b"?", ttl=60.0)
            assert (await self.loaded(store, address)).snapshot == b"one"

    async def test_a_save_repeated_is_acknowledged_and_changes_nothing(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
            before = await self.loaded(store, address)
            self.clock.advance(5.0)
            assert await store.save(address, epoch=1, version=2, snapshot=b"other", ttl=9_000.0) is None
            assert await store.load(address) == before

    async def test_a_version_that_does_not_follow_is_refused(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
            await store.save(address, epoch=1, version=3, snapshot=b"three", ttl=60.0)
            before = await self.loaded(store, address)
            for version in (5, 100, 2, 1, 0, -1):
                with pytest.raises(StaleEpoch):
                    await store.save(address, epoch=1, version=version, snapshot=b"gap", ttl=9_000.0)
            assert await store.load(address) == before
            await store.save(address, epoch=1, version=4, snapshot=b"four", ttl=60.0)

    async def test_a_new_owner_goes_on_counting_versions(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
            await store.claim(address, owner="node-2")
            await store.save(address, epoch=2, version=3, snapshot=b"three", ttl=60.0)
            record = await self.loaded(store, address)
            assert (record.epoch, record.version, record.snapshot) == (2, 3, b"three")

    async def test_a_stale_owner_cannot_touch(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            claimed = await store.claim(address, owner="node-2")
            for epoch in (0, 1, 3):
                with pytest.raises(StaleEpoch) as caught:
                    await store.touch(address, epoch=epoch, ttl=9_000.0)
                assert (caught.value.held, caught.value.stored) == (epoch, 2)
            assert await store.load(address) == claimed

    async def test_a_stale_owner_cannot_delete(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            claimed = await store.claim(address, owner="node-2")
            with pytest.raises(StaleEpoch) as caught:
                await store.delete(address, epoch=1)
            assert (caught.value.address, caught.value.held, caught.value.stored) == (address, 1, 2)
            assert await store.load(address) == claimed
            assert await store.delete(address, epoch=2) is True
            assert await store.load(address) is None

    async def test_anybody_may_delete_without_an_epoch(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.claim(address, owner="node-2")
            assert await store.delete(address) is True

    async def test_a_hundred_claims_at_once_get_a_hundred_consecutive_epochs(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            records = await asyncio.gather(*(store.claim(address, owner=f"node-{n}") for n in range(100)))
            assert sorted(record.epoch for record in records) == list(range(2, 102))
            last = max(records, key=lambda record: record.epoch)
            assert await store.load(address) == last

    async def test_of_many_creations_at_once_one_wins(self) -> None:
        async with self.opened() as store:
            address = Address.new("session")
            answers = await asyncio.gather(
                *(
                    store.create(address, tenant="acme", owner=f"node-{n}", snapshot=b"%d" % n, ttl=60.0)
                    for n in range(20)
                ),
                return_exceptions=True,
            )
            winners = [answer for answer in answers if not isinstance(answer, BaseException)]
            assert len(winners) == 1
            assert all(isinstance(answer, RecordExists) for answer in answers if answer is not winners[0])
            assert await store.load(address) == winners[0]

    async def test_of_many_saves_at_once_each_refusal_stands_alone(self) -> None:
        async with self.opened() as store:
            good, stale = [await self.new(store) for _ in range(20)], [await self.new(store) for _ in range(20)]
            for address in stale:
                await store.claim(address, owner="node-2")
            order = [address for pair in zip(good, stale, strict=True) for address in pair]
            answers = await asyncio.gather(
                *(store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0) for address in order),
                return_exceptions=True,
            )
            assert answers[::2] == [None] * 20
            assert all(isinstance(answer, StaleEpoch) for answer in answers[1::2])
            assert {(await self.loaded(store, address)).snapshot for address in good} == {b"two"}
            assert {(await self.loaded(store, address)).snapshot for address in stale} == {b"one"}

    async def test_a_claim_among_saves_sees_every_save_that_was_acknowledged(self) -> None:
        async with self.opened() as store:
            for _ in range(ROUNDS):
                address = await self.new(store, snapshot=b"1")
                acknowledged = 1

                async def write(address: Address = address) -> None:
                    nonlocal acknowledged
                    for version in range(2, 12):
                        await store.save(address, epoch=1, version=version, snapshot=b"%d" % version, ttl=60.0)
                        acknowledged = version

                async def take(address: Address = address) -> bytes:
                    await asyncio.sleep(0)
                    return (await store.claim(address, owner="node-2")).snapshot

                written, claimed = await asyncio.gather(write(), take(), return_exceptions=True)
                assert written is None or isinstance(written, StaleEpoch)
                assert claimed == b"%d" % acknowledged
                assert (await self.loaded(store, address)).snapshot == claimed

    async def test_rivals_lose_no_acknowledged_save_and_write_none_twice(self) -> None:
        async with self.opened() as store:
            address = await self.new(store, snapshot=b"0")
            acknowledged = 0

            async def count_up(owner: str) -> None:
                nonlocal acknowledged
                for _ in range(ROUNDS):
                    record = await store.claim(address, owner=owner)
                    count = b"%d" % (int(record.snapshot) + 1)
                    with contextlib.suppress(StaleEpoch):
                        await store.save(
                            address, epoch=record.epoch, version=record.version + 1, snapshot=count, ttl=60.0
                        )
                        acknowledged += 1

            await asyncio.gather(*(count_up(f"node-{n}") for n in range(5)))
            record = await self.loaded(store, address)
            assert (record.snapshot, record.version) == (b"%d" % acknowledged, acknowledged + 1)
            assert record.epoch == 1 + 5 * ROUNDS

    @needs_a_second_store
    async def test_two_nodes_on_one_store_fence_each_other(self) -> None:
        async with self.opened() as first:
            address = await self.new(first)
            async with self.reopened() as second:
                taken = await second.claim(address, owner="node-2")
                assert (taken.epoch, taken.snapshot) == (2, b"one")
                with pytest.raises(StaleEpoch):
                    await first.save(address, epoch=1, version=2, snapshot=b"stale", ttl=60.0)
                await second.save(address, epoch=2, version=2, snapshot=b"two", ttl=60.0)
                assert (await first.claim(address, owner="node-1")).snapshot == b"two"
                epochs = await asyncio.gather(
                    *((first, second)[n % 2].claim(address, owner=f"node-{n}") for n in range(50))
                )
                assert sorted(record.epoch for record in epochs) == list(range(4, 54))
