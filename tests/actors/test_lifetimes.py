"""How long a record lives, and who renews it."""

import asyncio

import pytest
from support.counting import CounterKind, Gate, a_registry, asleep, count, envelope, increment, opened
from understudy.actors import Access, ActorNotFound, OwnershipLost
from understudy.actors.testing import settle


@pytest.fixture
def kind():
    return CounterKind(ttl=800)


async def expires_in(clock, store, address) -> float:
    return (await store.load(address)).expires - clock.monotonic()


async def test_each_save_renews_the_record(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await clock.advance(50)
        await registry.ask(address, increment)
        assert await expires_in(clock, store, address) == 800


async def test_clean_turns_renew_it_once_an_eighth_of_its_life_has_passed(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await clock.advance(100)
        await registry.ask(address, count)
        assert await expires_in(clock, store, address) == 700
        await clock.advance(1)
        await registry.ask(address, count, access=Access.SHARED)
        await settle()
        assert await expires_in(clock, store, address) == 800
        assert registry.stats()["touches"] == 1
        for _ in range(20):
            await registry.ask(address, count)
        await settle()
        assert registry.stats()["touches"] == 1


async def test_a_sleeping_record_expires(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await asleep(registry)
        await clock.advance(801)
        with pytest.raises(ActorNotFound):
            await registry.ask(address, count)


async def test_waking_up_renews_a_record_only_when_it_is_due(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        early, late = await asleep(registry), await asleep(registry)
        await clock.advance(50)
        await registry.ask(early, count)
        await settle()
        assert registry.stats()["touches"] == 0
        await clock.advance(100)
        await registry.ask(late, count)
        await settle()
        assert registry.stats()["touches"] == 1
        assert await expires_in(clock, store, late) == 800


@pytest.mark.parametrize("pinned", [True, False])
async def test_a_long_turn_or_a_pin_is_use_too(clock, store, kind, pinned):
    async with a_registry(clock, store, kind, idle_after=60) as registry:
        address = await opened(registry)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            if pinned:
                registry.pin(address)
            else:
                tasks.create_task(registry.ask(address, gate, access=Access.SHARED))
                await gate.entered.wait()
            await clock.advance(5000)
            assert await expires_in(clock, store, address) > 500
            gate.opened.set()
            registry.unpin(address)


async def test_a_touch_that_fails_is_counted_and_tried_again_later(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        await clock.advance(101)
        faulty.fail_next("touch", "refuse")
        await registry.ask(address, count)
        await settle()
        assert registry.stats()["touch_failures"] == 1
        await registry.ask(address, count)
        await settle()
        assert registry.stats()["touches"] == 0
        await clock.advance(13)
        await registry.ask(address, count)
        await settle()
        assert registry.stats()["touches"] == 1


async def test_a_touch_that_hangs_keeps_nobody_waiting_and_is_given_up(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        await settle()
        tasks = len(asyncio.all_tasks())
        address = await opened(registry)
        await clock.advance(101)
        faulty.fail_next("touch", "hang")
        assert await registry.ask(address, count) == 0
        assert await registry.ask(address, increment) == 1
        await clock.advance(5)
        assert registry.stats()["touch_failures"] == 1
        assert len(asyncio.all_tasks()) == tasks


async def test_touches_at_once_are_bounded(clock, faulty, kind):
    async with a_registry(clock, faulty, kind, idle_after=300) as registry:
        addresses = [await opened(registry) for _ in range(80)]
        await clock.advance(101)
        faulty.fail_next("touch", "hang", times=80)
        for address in addresses:
            await registry.ask(address, count)
        await settle()
        assert faulty.hanging == 64
        faulty.release()


async def test_a_touch_that_finds_another_owner_drops_the_actor(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await clock.advance(101)
        await store.claim(address, owner="node-2")
        assert await registry.ask(address, count) == 0
        await settle()
        assert address not in registry
        assert registry.stats()["lost"] == 1
        assert registry.stats()["touch_failures"] == 0


async def test_signals_reach_the_last_turn_of_an_actor_that_has_lost_its_record(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        running, outcome = envelope(gate)
        registry.deliver(address, running)
        await clock.advance(300)
        await store.claim(address, owner="node-2")
        await clock.advance(120)
        assert registry.live(address) is kind.created[0]
        gate.opened.set()
        with pytest.raises(OwnershipLost):
            await outcome
        assert registry.live(address) is None
        waited = await registry.ask(address, count)
        assert waited == 0
        assert len(kind.rehydrated) == 1


async def test_a_touch_that_finds_no_record_drops_the_actor(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await clock.advance(101)
        await store.delete(address)
        await registry.ask(address, count)
        await settle()
        with pytest.raises(ActorNotFound):
            await registry.ask(address, count)


async def test_expired_records_are_swept_out_of_the_store_in_batches(clock, store, kind):
    async with a_registry(clock, store, kind, expire_every=60) as registry:
        for number in range(2500):
            await store.create(
                (await _address(number)), tenant="acme", owner="x", snapshot=b"0", ttl=10 if number else 10_000
            )
        await clock.advance(60 * 1.2)
        await settle()
        assert registry.stats()["expired"] == 2499
        assert store.stats()["records"] == 1


async def _address(number):
    from understudy.stores import Address

    return Address("counter", f"number-{number}")


@pytest.mark.parametrize("fault", ["refuse", "hang"])
async def test_a_sweep_that_fails_is_counted_and_the_next_one_comes(clock, faulty, kind, fault):
    async with a_registry(clock, faulty, kind, expire_every=60) as registry:
        faulty.fail_next("expire", fault)
        await clock.advance(80)
        assert registry.stats()["expire_failures"] == 1
        await faulty.inner.create(await _address(1), tenant="acme", owner="x", snapshot=b"0", ttl=10)
        await clock.advance(150)
        assert registry.stats()["expired"] == 1
