"""`Cell.save` inside a turn."""

import asyncio

import pytest
from support.counting import CounterKind, Gate, a_registry, count, envelope, increment, opened
from understudy.actors import Access, ActorUnavailable, OutsideTurn, OwnershipLost
from understudy.actors.testing import settle
from understudy.stores import Address, StaleEpoch, StoreUnavailable


async def checkpoint(actor):
    actor.value += 1
    await actor.cell.save(str(actor.value).encode())
    actor.saved_value = actor.value


async def test_a_checkpoint_survives_the_failure_of_its_turn(clock, store, kind):
    async def half_way(actor):
        await checkpoint(actor)
        actor.value += 100
        raise ValueError("second half failed")

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        with pytest.raises(ValueError, match="second half"):
            await registry.ask(address, half_way)
        assert await registry.ask(address, count) == 6
        assert (await store.load(address)).snapshot == b"6"


async def test_a_turn_goes_on_from_its_checkpoints(clock, store, kind):
    async def in_steps(actor):
        for _ in range(3):
            await checkpoint(actor)
        actor.value += 1

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await registry.ask(address, in_steps)
        record = await store.load(address)
        assert (record.snapshot, record.version) == (b"4", 5)
        assert kind.created[0].cell.record.version == 5
        assert kind.created[0].cell.record.snapshot == b"4"


async def test_concurrent_checkpoints_of_one_turn_are_written_one_after_the_other(clock, store, kind):
    async def both(actor):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(checkpoint(actor))
            tasks.create_task(checkpoint(actor))

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await registry.ask(address, both)
        assert (await store.load(address)).version == 3


async def test_a_checkpoint_of_a_first_turn_creates_the_record(clock, store, kind):
    async def half_way(actor):
        await checkpoint(actor)
        raise ValueError("second half failed")

    async with a_registry(clock, store, kind) as registry:
        address = Address.new("counter")
        first, failed = envelope(half_way)
        registry.open(address, 0, "acme", first)
        with pytest.raises(ValueError, match="second half"):
            await failed
        assert await registry.ask(address, count) == 1


async def test_a_checkpoint_outside_an_exclusive_turn_is_refused(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        with pytest.raises(OutsideTurn, match="only inside an exclusive turn"):
            await registry.ask(address, checkpoint, access=Access.SHARED)
        with pytest.raises(OutsideTurn):
            await checkpoint(kind.created[0])


async def test_an_actor_that_is_not_durable_has_no_checkpoints(clock, store):
    async with a_registry(clock, store, CounterKind("scratch", durable=False)) as registry:
        with pytest.raises(OutsideTurn, match="not durable"):
            await registry.ask(Address.new("scratch"), checkpoint)


async def test_a_checkpoint_of_a_stale_owner_fails_the_turn_even_if_the_actor_shrugs(clock, store, kind):
    errors = []

    async def shrug(actor):
        for _ in range(2):
            try:
                await checkpoint(actor)
            except StaleEpoch as error:
                errors.append(error)
        return "fine"

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await store.claim(address, owner="node-2")
        with pytest.raises(OwnershipLost):
            await registry.ask(address, shrug)
        assert len(errors) == 2
        # The store was asked once: the writer knows from then on.
        assert (registry.stats()["stale_saves"], registry.stats()["save_failures"]) == (1, 1)
        assert await registry.ask(address, count) == 0
        assert len(kind.rehydrated) == 1


async def test_a_refused_checkpoint_is_the_turns_own_business(clock, faulty, kind):
    async def try_twice(actor):
        with pytest.raises(StoreUnavailable):
            await checkpoint(actor)
        await checkpoint(actor)
        return "second try"

    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "refuse", times=2)
        assert await registry.ask(address, try_twice) == "second try"
        assert (await faulty.inner.load(address)).snapshot == b"2"
        assert kind.rehydrated == []


async def test_a_checkpoint_that_stays_unknown_drops_the_actor(clock, faulty, kind):
    errors = []

    async def shrug(actor):
        for _ in range(2):
            try:
                await checkpoint(actor)
            except StoreUnavailable as error:
                errors.append(error.outcome_unknown)

    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "lose", times=3)
        message, outcome = envelope(shrug)
        registry.deliver(address, message)
        await clock.advance(16)
        error = outcome.exception()
        assert isinstance(error, ActorUnavailable)
        assert error.outcome_unknown
        assert errors == [True, True]
        assert await registry.ask(address, count) == 1


async def test_a_checkpoint_cut_off_by_a_cancellation_leaves_the_truth_to_the_store(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "hang_after")
        message, outcome = envelope(checkpoint, deadline=clock.monotonic() + 1)
        registry.deliver(address, message)
        await clock.advance(1)
        assert isinstance(outcome.exception(), TimeoutError)
        assert await registry.ask(address, count) == 1
        assert len(kind.rehydrated) == 1


async def test_a_checkpoint_that_outlives_a_turn_that_failed_leaves_the_truth_to_the_store(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry, asyncio.TaskGroup() as strays:
        address = await opened(registry)

        async def leave_one_behind(actor):
            strays.create_task(checkpoint(actor))
            await settle()
            raise ValueError("the rest failed")

        faulty.fail_next("save", "hang")
        with pytest.raises(ValueError, match="the rest"):
            await registry.ask(address, leave_one_behind)
        faulty.release()
        await settle()
        assert await registry.ask(address, count) == int((await faulty.inner.load(address)).snapshot) == 1


async def test_a_checkpoint_that_outlives_its_turn_is_over_before_the_turns_own_save(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry, asyncio.TaskGroup() as strays:
        address = await opened(registry)
        gate = Gate()

        async def leave_one_behind(actor):
            strays.create_task(checkpoint(actor))
            await gate.opened.wait()
            actor.value += 1

        faulty.fail_next("save", "hang")
        message, outcome = envelope(leave_one_behind)
        registry.deliver(address, message)
        await settle()
        gate.opened.set()
        await settle()
        assert not outcome.done()
        faulty.release()
        await outcome
        assert (await faulty.inner.load(address)).version == 3
        assert await registry.ask(address, increment) == 3
