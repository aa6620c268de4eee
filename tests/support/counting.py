"""A kind of actor for tests: it counts, and does whatever a message says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from understudy.actors import Access, Cell, Envelope, FutureReply, Registry, SnapshotError
from understudy.actors.testing import ManualClock
from understudy.stores import Address, MemoryStore, Record, SessionStore

Message = Callable[["Counter"], Awaitable[Any]]


class Counter:
    """Its messages are functions that get the actor: `increment`, `count`, or a test's own."""

    def __init__(self, kind: CounterKind, cell: Cell, value: int, *, saved: int | None) -> None:
        self.kind = kind
        self.cell = cell
        self.value = value
        self.saved_value = saved
        self.running = 0
        self.most_running = 0
        self.rollbacks = 0
        self.on_saved: Callable[[], None] = lambda: None
        self.on_rollback: Callable[[], None] = lambda: None

    async def receive(self, message: Message, access: Access) -> Any:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await message(self)
        finally:
            self.running -= 1

    def snapshot(self) -> bytes | None:
        return None if self.value == self.saved_value else str(self.value).encode()

    def saved(self) -> None:
        self.on_saved()
        self.saved_value = self.value

    def rollback(self) -> None:
        self.rollbacks += 1
        self.on_rollback()
        self.value = self.saved_value or 0

    async def close(self) -> None:
        await self.kind.on_close(self)
        self.kind.closed.append(self.cell.address)


async def _nothing(_: object) -> None:
    return None


class CounterKind:
    """Remembers the actors it brought to life, newest last."""

    def __init__(self, name: str = "counter", *, durable: bool = True, ttl: float = 3600.0) -> None:
        self.name = name
        self.durable = durable
        self.ttl = ttl
        self.created: list[Counter] = []
        self.rehydrated: list[Counter] = []
        self.closed: list[Address] = []
        self.on_close: Callable[[Counter], Awaitable[None]] = _nothing
        self.on_rehydrate: Callable[[Cell], Awaitable[None]] = _nothing
        self.on_create: Callable[[Cell], Awaitable[None]] = _nothing

    async def create(self, cell: Cell, seed: Any) -> Counter:
        await self.on_create(cell)
        self.created.append(Counter(self, cell, seed or 0, saved=None))
        return self.created[-1]

    async def rehydrate(self, cell: Cell, record: Record) -> Counter:
        await self.on_rehydrate(cell)
        if not record.snapshot.isdigit():
            raise SnapshotError(f"snapshot {record.snapshot!r} is not a number")
        value = int(record.snapshot)
        self.rehydrated.append(Counter(self, cell, value, saved=value))
        return self.rehydrated[-1]


async def increment(actor: Counter) -> int:
    value = actor.value
    await asyncio.sleep(0)
    actor.value = value + 1
    return actor.value


async def count(actor: Counter) -> int:
    return actor.value


async def spoil(actor: Counter) -> None:
    actor.value += 100
    raise ValueError("spoilt")


class Gate:
    """A message whose turn waits until the test opens the gate; it changes the count first."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, actor: Counter) -> str:
        actor.value += 10
        self.entered.set()
        await self.opened.wait()
        return "through"


def a_registry(
    clock: ManualClock, store: SessionStore, *kinds: CounterKind, owner: str = "node-1", **options: Any
) -> Registry:
    return Registry(
        store=store, kinds=kinds, owner=owner, clock=clock, wall=clock.monotonic, random=Random(7), **options
    )


def a_store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock.monotonic)


def envelope(message: Message, **options: Any) -> tuple[Envelope, asyncio.Future[Any]]:
    """An envelope and the future of its outcome."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return Envelope(message, reply=FutureReply(future), **options), future


async def opened(registry: Registry, value: int = 0, *, kind: str = "counter", tenant: str = "acme") -> Address:
    """A new counter that has been saved once."""
    address = Address.new(kind)
    first, done = envelope(increment)
    registry.open(address, value - 1, tenant, first)
    assert await done == value
    return address


async def asleep(registry: Registry, value: int = 0) -> Address:
    """A counter that is only a record."""
    address = await opened(registry, value)
    assert await registry.passivate(address)
    return address
