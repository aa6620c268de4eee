"""The store contract, part four: cancellation, closing, and what is there afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ..address import Address
from ..errors import StoreUnavailable
from ..store import SessionStore
from .case import ContractCase, needs_a_second_store

__all__ = ["OutagesContract"]

CALLS: dict[str, Callable[[SessionStore, Address], Coroutine[Any, Any, object]]] = {
    "create": lambda store, address: store.create(
        Address.new("session"), tenant="acme", owner="node-1", snapshot=b"", ttl=60.0
    ),
    "claim": lambda store, address: store.claim(address, owner="node-2"),
    "load": lambda store, address: store.load(address),
    "save": lambda store, address: store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0),
    "touch": lambda store, address: store.touch(address, epoch=1, ttl=60.0),
    "delete": lambda store, address: store.delete(address),
    "list": lambda store, address: store.list(),
    "expire": lambda store, address: store.expire(),
    "ping": lambda store, address: store.ping(),
}


class OutagesContract(ContractCase):
    """What goes wrong around a store."""

    async def test_ping_returns_while_the_store_is_well(self) -> None:
        async with self.opened() as store:
            assert await store.ping() is None
            await asyncio.gather(*(store.ping() for _ in range(20)))

    @pytest.mark.parametrize("name", CALLS)
    async def test_a_cancelled_call_leaves_the_store_usable(self, name: str) -> None:
        async with self.opened() as store:
            for steps in range(6):
                address, other = await self.new(store), await self.new(store)
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(CALLS[name](store, address))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                await store.ping()
                await store.save(other, epoch=1, version=2, snapshot=b"two", ttl=60.0)
                assert (await store.claim(other, owner="node-2")).snapshot == b"two"
                # Done, not done, or still to be done: all of it is allowed, and nothing else.
                record = await store.load(address)
                if record is None:
                    assert name == "delete"
                else:
                    assert (record.version, record.snapshot) in ((1, b"one"), (2, b"two"))
                    assert record.version == 1 or name == "save"
                    assert record.epoch == 1 or name == "claim"

    async def test_a_cancelled_call_takes_no_neighbour_along(self) -> None:
        async with self.opened() as store:
            addresses = [await self.new(store) for _ in range(40)]

            async def save(address: Address) -> None:
                await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(save(address)) for address in addresses]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
            for address in addresses[1::2]:
                assert (await self.loaded(store, address)).snapshot == b"two"
            for address in addresses[::2]:
                await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
                assert (await self.loaded(store, address)).snapshot == b"two"

    async def test_a_closed_store_says_that_it_is_unavailable(self) -> None:
        async with self.opened() as store:
            address = await self.new(store)
            await store.aclose()
            await store.aclose()
            for name, call in CALLS.items():
                with pytest.raises(StoreUnavailable) as caught:
                    await call(store, address)
                assert caught.value.outcome_unknown is False, name

    @needs_a_second_store
    async def test_what_was_acknowledged_is_there_after_a_restart(self) -> None:
        async with self.opened() as store:
            addresses = [await self.new(store, snapshot=b"%d" % n) for n in range(20)]
            for address in addresses[:10]:
                await store.claim(address, owner="node-2")
                await store.save(address, epoch=2, version=2, snapshot=b"saved", ttl=60.0)
            await store.delete(addresses[-1])
            before = [await store.load(address) for address in addresses]
            await store.aclose()
            async with self.reopened() as again:
                assert [await again.load(address) for address in addresses] == before

    @needs_a_second_store
    async def test_closing_finishes_the_writes_that_were_accepted(self) -> None:
        async with self.opened() as store:
            addresses = [await self.new(store) for _ in range(40)]
            saved: list[Address] = []

            async def save(address: Address) -> None:
                try:
                    await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
                except StoreUnavailable:
                    return
                saved.append(address)

            async with asyncio.TaskGroup() as group:
                for address in addresses:
                    group.create_task(save(address))
                await asyncio.sleep(0)
                await store.aclose()
            async with self.reopened() as again:
                for address in saved:
                    assert (await self.loaded(again, address)).snapshot == b"two"
