"""Deadlines of messages: before the turn, while it runs, and after."""

import asyncio
import contextvars

import pytest
from support.counting import Gate, a_registry, asleep, count, envelope, increment, opened
from understudy.actors import Access, DeadlineExceeded
from understudy.actors.testing import settle


async def increment_unless_cancelling(actor):
    """A cancellation of the turn before must not reach this one's timeouts and task groups."""
    assert asyncio.current_task().cancelling() == 0
    return await increment(actor)


async def test_a_message_whose_deadline_has_passed_already_never_runs(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        for access in Access:
            message, outcome = envelope(increment, access=access, deadline=clock.monotonic())
            registry.deliver(address, message)
            with pytest.raises(DeadlineExceeded, match="before its turn began") as passed:
                await outcome
            assert not passed.value.started
        assert await registry.ask(address, count) == 0
        assert registry.stats()["deadlines_exceeded"] == 2


async def test_a_message_that_waits_too_long_is_answered_at_its_deadline_and_never_runs(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        running, done = envelope(gate)
        waiting, outcome = envelope(increment, deadline=clock.monotonic() + 2)
        registry.deliver(address, running)
        registry.deliver(address, waiting)
        await clock.advance(2)
        assert not outcome.exception().started
        assert not done.done()
        gate.opened.set()
        await done
        assert await registry.ask(address, count) == 10


@pytest.mark.parametrize("context", [None, contextvars.copy_context()])
async def test_a_turn_that_runs_past_its_deadline_is_cancelled_and_rolled_back(clock, store, kind, context):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        gate = Gate()
        message, outcome = envelope(gate, deadline=clock.monotonic() + 2, context=context)
        following, done = envelope(increment_unless_cancelling)
        registry.deliver(address, message)
        registry.deliver(address, following)
        await gate.entered.wait()
        await clock.advance(2)
        with pytest.raises(DeadlineExceeded, match="while its turn ran") as passed:
            await outcome
        assert passed.value.started
        assert await done == 6


async def test_a_shared_turn_that_runs_past_its_deadline_is_cancelled(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        message, outcome = envelope(gate, access=Access.SHARED, deadline=clock.monotonic() + 2)
        registry.deliver(address, message)
        await gate.entered.wait()
        await clock.advance(2)
        assert outcome.exception().started
        assert registry.live(address).running == 0


async def test_who_asks_may_say_how_long(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)

        async def asks():
            with pytest.raises(DeadlineExceeded):
                await registry.ask(address, Gate(), timeout=2)
            return clock.monotonic()

        start = clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(asks())
            await clock.advance(5)
        assert asking.result() == start + 2


async def test_a_turn_that_is_done_in_time_is_left_alone(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        await settle()
        timers = clock.timers
        address = await opened(registry)
        assert await registry.ask(address, increment, timeout=2) == 1
        assert clock.timers == timers
        gate = Gate()
        message, outcome = envelope(gate)
        registry.deliver(address, message)
        await clock.advance(10)
        assert not outcome.done()
        gate.opened.set()
        assert await outcome == "through"


async def test_a_deadline_does_not_cut_off_the_save_of_a_turn_that_has_returned(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "hang")
        message, outcome = envelope(increment, deadline=clock.monotonic() + 2)
        registry.deliver(address, message)
        await clock.advance(3)
        assert not outcome.done()
        faulty.release()
        assert await outcome == 1


async def test_a_turn_that_returns_in_spite_of_its_cancellation_has_its_result(clock, store, kind):
    async def finish_anyway(actor):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            actor.value += 1
        return actor.value

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        message, outcome = envelope(finish_anyway, deadline=clock.monotonic() + 2)
        following, done = envelope(increment_unless_cancelling)
        registry.deliver(address, message)
        registry.deliver(address, following)
        await clock.advance(2)
        assert outcome.result() == 1
        assert await done == 2


async def test_a_deadline_counts_while_the_actor_comes_to_life(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", "hang")
        message, outcome = envelope(increment, deadline=clock.monotonic() + 2)
        registry.deliver(address, message)
        await clock.advance(2)
        assert not outcome.exception().started
        faulty.release()
        assert await registry.ask(address, count) == 0


async def test_a_deadline_survives_a_redelivery(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        stale, _ = envelope(gate)
        waiting, outcome = envelope(Gate(), deadline=clock.monotonic() + 5)
        registry.deliver(address, stale)
        registry.deliver(address, waiting)
        await gate.entered.wait()
        await store.claim(address, owner="node-2")
        gate.opened.set()
        await settle()
        assert len(kind.rehydrated) == 1
        await clock.advance(5)
        assert outcome.exception().started
        assert kind.rehydrated[0].value == 0
        assert registry.stats()["deadlines_exceeded"] == 1
        stale.reply.future.exception()
