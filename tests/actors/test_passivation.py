"""Who leaves memory when, and what stays."""

import asyncio
import sys

import pytest
from support.counting import CounterKind, Gate, a_registry, count, envelope, increment, opened
from understudy.actors import Access, Departure
from understudy.actors.testing import settle
from understudy.stores import Address


async def test_an_idle_actor_is_put_to_sleep_and_wakes_with_its_state(clock, store, kind):
    async with a_registry(clock, store, kind, idle_after=300) as registry:
        address = await opened(registry, 5)
        await clock.advance(290)
        assert address in registry
        await clock.advance(20)
        assert address not in registry
        assert kind.closed == [address]
        assert await registry.ask(address, count) == 5
        assert registry.stats()["passivated"] == 1


async def test_passivation_writes_nothing(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        before = await store.load(address)
        assert await registry.passivate(address)
        assert await store.load(address) == before


async def test_use_keeps_an_actor_in_memory(clock, store, kind):
    async with a_registry(clock, store, kind, idle_after=300) as registry:
        used, shared, unused = [await opened(registry) for _ in range(3)]
        for _ in range(3):
            await clock.advance(200)
            await registry.ask(used, count)
            await registry.ask(shared, count, access=Access.SHARED)
        assert [address in registry for address in (used, shared, unused)] == [True, True, False]


async def test_looking_at_a_live_actor_is_no_use_of_it(clock, store, kind):
    async with a_registry(clock, store, kind, idle_after=300) as registry:
        address = await opened(registry)
        assert registry.live(address) is kind.created[0]
        await clock.advance(200)
        assert registry.live(address) is kind.created[0]
        await clock.advance(200)
        assert registry.live(address) is None


async def test_an_actor_with_a_turn_running_stays(clock, store, kind):
    async with a_registry(clock, store, kind, idle_after=300, memory_pressure=lambda: True) as registry:
        exclusive, shared = await opened(registry), await opened(registry)
        gates = [Gate(), Gate()]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.ask(exclusive, gates[0]))
            tasks.create_task(registry.ask(shared, gates[1], access=Access.SHARED))
            await clock.advance(1000)
            assert exclusive in registry
            assert shared in registry
            assert not await registry.passivate(exclusive)
            for gate in gates:
                gate.opened.set()
        await clock.advance(300)
        assert registry.stats()["live"] == 0


async def test_a_pinned_actor_stays_until_it_is_unpinned_as_often(clock, store, kind):
    async with a_registry(clock, store, kind, idle_after=300) as registry:
        address = await opened(registry)
        assert registry.pin(address)
        kind.created[0].cell.pin()
        await clock.advance(1000)
        await registry.ask(address, count)
        await clock.advance(1000)
        registry.unpin(address)
        await clock.advance(1000)
        assert not await registry.passivate(address)
        kind.created[0].cell.unpin()
        await clock.advance(290)
        assert address in registry
        await clock.advance(20)
        assert address not in registry
        assert not registry.pin(address)
        registry.unpin(address)


async def test_memory_pressure_puts_the_least_recently_used_to_sleep_first(clock, store, kind):
    async with a_registry(
        clock, store, kind, idle_after=3600, sweep_every=10, memory_pressure=lambda: registry.stats()["live"] > 100
    ) as registry:
        addresses = [await opened(registry) for _ in range(200)]
        await registry.ask(addresses[0], count)
        await clock.advance(10)
        gone = [address for address in addresses if address not in registry]
        assert gone == addresses[1 : len(gone) + 1]
        assert 100 <= len(gone) < 200


async def test_memory_pressure_that_raises_does_not_stop_the_sweeps(clock, store, kind, caplog):
    def broken():
        raise OSError("no /proc")

    async with a_registry(clock, store, kind, idle_after=300, memory_pressure=broken) as registry:
        address = await opened(registry)
        await clock.advance(400)
        assert address not in registry
        await opened(registry)
        await clock.advance(10)
        assert "no /proc" in caplog.text


async def test_many_idle_actors_leave_in_one_sweep(clock, store, kind):
    async with a_registry(clock, store, kind, idle_after=300) as registry:
        addresses = [await opened(registry) for _ in range(500)]
        await clock.advance(320)
        await settle(100)
        assert registry.stats()["live"] == 0
        assert kind.closed == addresses


async def test_a_message_to_an_actor_that_falls_asleep_waits_for_its_next_life(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        closing = Gate()

        async def slowly(actor):
            await closing.opened.wait()

        kind.on_close = slowly
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.passivate(address))
            await settle()
            asked = tasks.create_task(registry.ask(address, increment))
            read = tasks.create_task(registry.ask(address, count, access=Access.SHARED))
            await settle()
            assert kind.rehydrated == []
            assert registry.live(address) is None
            closing.opened.set()
        assert asked.result() == 6
        assert read.result() in (5, 6)
        assert len(kind.rehydrated) == 1


async def test_a_close_that_hangs_or_raises_does_not_keep_the_actor(clock, store, kind, caplog):
    async def hang(actor):
        await asyncio.Event().wait()

    async def fail(actor):
        raise RuntimeError("cannot close")

    async with a_registry(clock, store, kind, close_timeout=5) as registry:
        for on_close in (hang, fail):
            kind.on_close = on_close
            address = await opened(registry)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(registry.passivate(address))
                await clock.advance(5)
            assert address not in registry
        assert registry.stats()["close_failures"] == 2
        kind.on_close = type(kind)().on_close


async def test_only_a_live_idle_actor_can_be_put_to_sleep(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        assert not await registry.passivate(Address.new("counter"))
        address = await opened(registry)
        assert await registry.passivate(address)
        assert not await registry.passivate(address)


async def test_a_record_never_outlived_by_its_idle_actor(clock, store):
    kind = CounterKind(ttl=100)
    async with a_registry(clock, store, kind, idle_after=3600) as registry:
        address = await opened(registry)
        await clock.advance(130)
        assert address not in registry


async def test_a_quiet_actor_owns_no_task_and_no_timer(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        await settle()
        tasks, timers = len(asyncio.all_tasks()), clock.timers
        addresses = [await opened(registry) for _ in range(20)]
        for address in addresses:
            await registry.ask(address, increment)
            await registry.ask(address, count, access=Access.SHARED, timeout=60)
            registry.tell(address, increment)
            registry.tell(address, increment)
        await settle()
        assert registry.stats()["live"] == 20
        assert len(asyncio.all_tasks()) == tasks
        assert clock.timers == timers
        for address in addresses:
            cell = registry._cells[address]
            assert cell.mailbox is None
            assert cell.shared is None


async def test_a_quiet_actors_cell_costs_well_under_a_kilobyte(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        cell = registry._cells[address]
        parts = [cell, cell.writer, cell.writer._base]
        assert sum(map(sys.getsizeof, parts)) < 600


class Witness:
    def __init__(self) -> None:
        self.seen = []

    def activated(self, cell, *, rehydrated):
        self.seen.append(("activated", cell.address, rehydrated))

    def departed(self, cell, departure):
        self.seen.append((departure, cell.address))


async def test_an_observer_sees_who_comes_and_who_goes(clock, store, kind):
    witness = Witness()
    async with a_registry(clock, store, kind, observer=witness) as registry:
        address = await opened(registry)
        await registry.passivate(address)
        await registry.ask(address, count)
        await registry.end(address)
        with pytest.raises(LookupError):
            await registry.ask(address, count)
    assert witness.seen == [
        ("activated", address, False),
        (Departure.PASSIVATED, address),
        ("activated", address, True),
        (Departure.ENDED, address),
    ]


async def test_an_observer_that_raises_disturbs_nobody(clock, store, kind, caplog):
    class Broken:
        def activated(self, cell, *, rehydrated):
            raise RuntimeError("broken observer")

        def departed(self, cell, departure):
            raise RuntimeError("broken observer")

    async with a_registry(clock, store, kind, observer=Broken()) as registry:
        address = await opened(registry, 5)
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        assert await outcome == 6
        assert await registry.passivate(address)
    assert "broken observer" in caplog.text
