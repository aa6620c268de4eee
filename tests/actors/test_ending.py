"""The end of an actor: its turns, its waiting messages, its record."""

import asyncio

import pytest
from support.counting import CounterKind, Gate, a_registry, asleep, count, envelope, increment, opened
from understudy.actors import Access, ActorEnded, ActorNotFound, ActorUnavailable, OwnershipLost, TurnCancelled
from understudy.actors.testing import settle
from understudy.stores import Address


async def test_an_ended_actor_is_gone_with_its_record(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        assert await registry.end(address)
        assert await store.load(address) is None
        assert kind.closed == [address]
        with pytest.raises(ActorNotFound):
            await registry.ask(address, count)
        assert registry.stats()["ended"] == 1


async def test_the_end_cancels_what_runs_and_fails_what_waits(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        exclusive, shared = Gate(), Gate()
        running, cancelled = envelope(exclusive)
        reading, unread = envelope(shared, access=Access.SHARED)
        waiting, unheard = envelope(increment)
        for message in (running, reading, waiting):
            registry.deliver(address, message)
        await exclusive.entered.wait()
        await shared.entered.wait()
        assert await registry.end(address)
        assert cancelled.cancelled()
        assert unread.cancelled()
        assert isinstance(unheard.exception(), ActorEnded)
        assert kind.created[0].rollbacks == 1
        assert await store.load(address) is None


async def test_who_asks_is_told_that_the_turn_was_cancelled_not_itself(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:

            async def asks():
                with pytest.raises(TurnCancelled):
                    await registry.ask(address, gate)
                return "told"

            asking = tasks.create_task(asks())
            await gate.entered.wait()
            await registry.end(address)
        assert asking.result() == "told"


async def test_a_sleeping_actor_can_be_ended_without_being_woken(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await asleep(registry)
        assert await registry.end(address)
        assert await store.load(address) is None
        assert kind.rehydrated == []
        assert not await registry.end(address)


async def test_ending_twice_at_once_ends_once(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        assert await asyncio.gather(registry.end(address), registry.end(address)) == [True, True]
        assert registry.stats()["ended"] == 1


async def test_a_save_under_way_is_finished_before_the_end(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "hang")
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await settle()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.end(address))
            await settle()
            assert not outcome.done()
            faulty.release()
        assert outcome.result() == 1
        assert await faulty.inner.load(address) is None


async def test_a_turn_that_ignores_its_cancellation_cannot_hold_up_the_end(clock, store, kind, caplog):
    stubborn = Gate()

    async def ignore(actor):
        stubborn.entered.set()
        while not stubborn.opened.is_set():
            try:
                await stubborn.opened.wait()
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
        actor.value += 1

    async with a_registry(clock, store, kind, close_timeout=5) as registry:
        address = await opened(registry)
        message, outcome = envelope(ignore)
        registry.deliver(address, message)
        await stubborn.entered.wait()
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(registry.end(address))
            await clock.advance(5)
            assert ending.done()
        assert await store.load(address) is None
        stubborn.opened.set()
        await settle()
        assert outcome.cancelled()
        assert await store.load(address) is None
        assert "goes on after its cancellation" in caplog.text


async def test_a_stale_owner_does_not_delete_what_another_has_claimed(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await store.claim(address, owner="node-2")
        with pytest.raises(OwnershipLost):
            await registry.end(address)
        assert await store.load(address) is not None
        assert address not in registry


@pytest.mark.parametrize("fault", ["lose", "hang", "hang_after"])
async def test_a_delete_without_an_answer_is_repeated(clock, faulty, kind, fault):
    async with a_registry(clock, faulty, kind) as registry:
        for live in (True, False):
            address = await (opened if live else asleep)(registry)
            faulty.fail_next("delete", fault)
            async with asyncio.TaskGroup() as tasks:
                ending = tasks.create_task(registry.end(address))
                await clock.advance(6)
            assert ending.result() is True
            assert await faulty.inner.load(address) is None


async def test_a_delete_that_fails_is_told_and_can_be_tried_again(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        for live in (True, False):
            address = await (opened if live else asleep)(registry)
            faulty.fail_next("delete", "refuse", times=2)
            with pytest.raises(ActorUnavailable, match="may still be there"):
                await registry.end(address)
            assert address not in registry
            assert await registry.end(address)


async def test_an_actor_can_end_itself_and_its_caller_hears_of_it_when_the_record_is_gone(clock, faulty, kind):
    async def finish(actor):
        actor.value += 1
        actor.cell.end_soon()
        actor.cell.end_soon()
        return "goodbye"

    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("delete", "hang")
        message, outcome = envelope(finish)
        waiting, unheard = envelope(count)
        registry.deliver(address, message)
        registry.deliver(address, waiting)
        await settle()
        assert not outcome.done()
        assert isinstance(unheard.exception(), ActorEnded)
        with pytest.raises(ActorEnded):
            registry.tell(address, count)
        faulty.release()
        assert await outcome == "goodbye"
        assert await faulty.inner.load(address) is None
        assert registry.stats()["saves"] == 1


async def test_an_actor_that_ends_itself_is_told_when_the_record_could_not_be_deleted(clock, faulty, kind):
    async def finish(actor):
        actor.cell.end_soon()

    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("delete", "refuse", times=2)
        with pytest.raises(ActorUnavailable, match="may still be there"):
            await registry.ask(address, finish)


async def test_a_turn_that_fails_after_asking_for_the_end_ends_the_actor_all_the_same(clock, store, kind):
    async def stumble(actor):
        actor.cell.end_soon()
        raise ValueError("stumbled")

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        with pytest.raises(ValueError, match="stumbled"):
            await registry.ask(address, stumble)
        await settle()
        assert await store.load(address) is None


async def test_a_shared_turn_that_asks_for_the_end_gets_its_reply_first(clock, store, kind):
    async def finish(actor):
        actor.cell.end_soon()
        await asyncio.sleep(0)
        return "goodbye"

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        message, cancelled = envelope(gate)
        registry.deliver(address, message)
        await gate.entered.wait()
        assert await registry.ask(address, finish, access=Access.SHARED) == "goodbye"
        await settle()
        assert cancelled.cancelled()
        assert await store.load(address) is None


async def test_a_task_of_a_turn_that_asks_for_the_end_does_not_cancel_the_turn(clock, store, kind):
    async def finish(actor):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(int)).add_done_callback(lambda _: actor.cell.end_soon())
        await asyncio.sleep(0)
        return "goodbye"

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        assert await registry.ask(address, finish) == "goodbye"
        assert await store.load(address) is None


async def test_outside_every_turn_an_actor_ends_at_once(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        registry.live(address).cell.end_soon()
        await settle()
        assert address not in registry
        assert await store.load(address) is None


async def test_an_actor_that_is_falling_asleep_can_be_ended(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        slept, ended = await asyncio.gather(registry.passivate(address), registry.end(address))
        assert (slept, ended) == (True, True)
        assert await store.load(address) is None


async def test_the_end_of_an_address_that_never_was_says_so(clock, store, kind):
    async with a_registry(clock, store, kind, CounterKind("scratch", durable=False)) as registry:
        assert not await registry.end(Address.new("counter"))
        assert not await registry.end(Address.new("scratch"))
        scratch = Address.new("scratch")
        await registry.ask(scratch, increment)
        assert await registry.end(scratch)
        missing = Address.new("counter")
        message, outcome = envelope(count)
        registry.deliver(missing, message)
        assert not await registry.end(missing)
        assert isinstance(outcome.exception(), ActorEnded)


async def test_cancelling_who_ends_an_actor_does_not_stop_the_end(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("delete", "hang")
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(registry.end(address))
            await settle()
            ending.cancel()
            await settle()
        assert ending.cancelled()
        faulty.release()
        await settle()
        assert await faulty.inner.load(address) is None


async def test_an_end_during_an_activation_that_fails_deletes_the_record_all_the_same(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", "hang")
        message, outcome = envelope(count)
        registry.deliver(address, message)
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(registry.end(address))
            await clock.advance(6)
        assert ending.result() is True
        assert isinstance(outcome.exception(), ActorEnded)
        assert await faulty.inner.load(address) is None
