"""Turns that begin before `deliver` returns: all else is as with any turn."""

import asyncio
import contextvars

import pytest
from support.counting import Gate, a_registry, count, envelope, increment, opened
from understudy.actors import Access
from understudy.actors.testing import settle


def at_once(message, **options):
    sent, future = envelope(message, **{"context": contextvars.copy_context(), **options})
    sent.at_once = True
    return sent, future


async def looked_at(actor):
    return asyncio.current_task()


@pytest.mark.parametrize("access", Access)
async def test_a_turn_that_need_not_wait_is_over_when_it_has_been_delivered(clock, store, kind, access):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 3)
        me = asyncio.current_task()
        message, future = at_once(looked_at, access=access)
        registry.deliver(address, message)
        assert future.result() not in (None, me)
        assert asyncio.current_task() is me
        assert registry.stats()["live"] == 1
        assert await registry.ask(address, count) == 3


@pytest.mark.parametrize("missing", ["context", "time without end"])
async def test_without_a_context_or_with_a_deadline_it_begins_as_others_do(clock, store, kind, missing):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 3)
        options = {"context": None} if missing == "context" else {"deadline": clock.monotonic() + 60}
        message, future = at_once(count, **options)
        registry.deliver(address, message)
        assert not future.done()
        assert await future == 3


async def test_it_waits_for_the_turn_that_runs_and_keeps_its_place(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        seen: list[int] = []

        def note(number: int):
            async def message(actor):
                seen.append(number)
                if number % 2:
                    await asyncio.sleep(0)
                seen.append(number)

            return message

        futures = []
        for number in range(60):
            message, future = (at_once if number % 3 else envelope)(note(number))
            registry.deliver(address, message)
            futures.append(future)
        await asyncio.gather(*futures)
        assert seen == [number for number in range(60) for _ in range(2)]
        assert kind.created[0].most_running == 1


async def test_those_that_wait_for_their_turns_are_not_run_one_within_the_other(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        first, waiting = Gate(), []
        registry.deliver(address, at_once(first)[0])
        for _ in range(1000):
            message, future = at_once(count)
            registry.deliver(address, message)
            waiting.append(future)
        first.opened.set()
        assert await asyncio.gather(*waiting) == [10] * 1000


async def test_a_turn_may_give_its_own_actor_another_to_begin_at_once(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        order: list[str] = []
        inner: list[asyncio.Future[None]] = []

        async def within(actor):
            order.append("inner")

        async def message(actor):
            sent, future = at_once(within)
            inner.append(future)
            registry.deliver(address, sent)
            order.append("outer")

        sent, future = at_once(message)
        registry.deliver(address, sent)
        await asyncio.gather(future, *inner)
        assert order == ["outer", "inner"]
        assert kind.created[0].most_running == 1


async def test_what_it_changes_is_saved_before_it_is_told(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry, 3)
        message, future = at_once(increment)
        registry.deliver(address, message)
        assert await future == 4
        assert (await faulty.load(address)).snapshot == b"4"


async def test_what_it_raises_stays_with_its_caller(clock, store, kind):
    async def fails(actor):
        raise RuntimeError("not this time")

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 3)
        message, future = at_once(fails)
        registry.deliver(address, message)
        with pytest.raises(RuntimeError, match="not this time"):
            future.result()
        assert await registry.ask(address, increment) == 4


async def test_its_cancellation_is_its_own(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 3)
        running: list[asyncio.Task[None]] = []

        async def hangs(actor):
            running.append(asyncio.current_task())
            await asyncio.sleep(3600)

        message, future = at_once(hangs)
        registry.deliver(address, message)
        assert not future.done()
        running[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert await registry.ask(address, increment) == 4


@pytest.mark.parametrize("access", Access)
async def test_the_registry_ends_after_those_that_wait(clock, store, kind, access):
    gate = Gate()
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        message, future = at_once(gate, access=access)
        registry.deliver(address, message)
        await settle()
        gate.opened.set()
    assert future.result() == "through"


async def test_a_registry_that_is_cancelled_leaves_none_behind(clock, store, kind):
    left = asyncio.Event()

    async def hangs(actor):
        try:
            await asyncio.sleep(3600)
        finally:
            left.set()

    async def serve():
        async with a_registry(clock, store, kind) as registry:
            address = await opened(registry)
            registry.deliver(address, at_once(hangs)[0])

    before = asyncio.all_tasks()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve())
        await settle()
        serving.cancel()
    assert serving.cancelled()
    assert left.is_set()
    assert asyncio.all_tasks() == before
