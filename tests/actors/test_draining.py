"""How a node stops."""

import asyncio

import anyio
import pytest
from support.counting import Gate, a_registry, asleep, count, envelope, increment, opened
from understudy.actors import Access, NodeDraining
from understudy.actors.testing import settle
from understudy.stores import Address


async def test_a_draining_node_starts_no_actors(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        sleeping = await asleep(registry)
        assert await registry.drain(10)
        first, _ = envelope(increment)
        for refused in (
            lambda: registry.open(Address.new("counter"), 0, "acme", first),
            lambda: registry.deliver(sleeping, first),
        ):
            with pytest.raises(NodeDraining) as refusal:
                refused()
            assert refusal.value.retry_after > 0
        assert len(kind.rehydrated) == 0


async def test_actors_are_closed_least_recently_used_first(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        addresses = [await opened(registry) for _ in range(5)]
        await registry.ask(addresses[1], count)
        await registry.drain(10)
        assert kind.closed == [*(addresses[n] for n in (0, 2, 3, 4)), addresses[1]]
        assert registry.stats()["live"] == 0


async def test_turns_that_run_and_wait_are_finished_first(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address, idle = await opened(registry), await opened(registry)
        gate = Gate()
        running, done = envelope(gate)
        waiting, then = envelope(increment)
        registry.deliver(address, running)
        registry.deliver(address, waiting)
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(registry.drain(10))
            await settle()
            assert kind.closed == [idle]
            late, last = envelope(count)
            registry.deliver(address, late)
            assert not draining.done()
            gate.opened.set()
        assert draining.result() is True
        assert (done.result(), then.result(), last.result()) == ("through", 11, 11)
        assert (await store.load(address)).snapshot == b"11"


async def test_what_is_not_done_in_time_is_cut_short_and_told(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address, pinned = await opened(registry, 5), await opened(registry)
        registry.pin(pinned)
        running, cancelled = envelope(Gate())
        reading, unread = envelope(Gate(), access=Access.SHARED)
        waiting, refused = envelope(increment)
        for message in (running, reading, waiting):
            registry.deliver(address, message)
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(registry.drain(10))
            await clock.advance(9)
            assert kind.closed == [pinned]
            await clock.advance(1)
            assert draining.result() is False
        assert cancelled.cancelled()
        assert unread.cancelled()
        assert isinstance(refused.exception(), NodeDraining)
        assert kind.created[0].rollbacks == 1
        assert kind.closed == [pinned, address]
        assert (await store.load(address)).snapshot == b"5"


async def test_an_activation_that_hangs_is_cut_short_too(clock, faulty, kind):
    async with a_registry(clock, faulty, kind, store_timeout=60) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", "hang")
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(registry.drain(10))
            await clock.advance(10)
            assert draining.done()
        assert isinstance(outcome.exception(), NodeDraining)
        assert registry.stats()["activating"] == 0


async def test_leaving_the_block_drains(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        message, outcome = envelope(increment)
        registry.deliver(address, message)
    assert outcome.result() == 1
    assert kind.closed == [address]
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(NodeDraining):
        registry.tell(address, increment)


async def test_an_error_of_the_block_passes_as_it_is(clock, store, kind):
    async def node():
        async with a_registry(clock, store, kind) as registry:
            await opened(registry)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await node()
    assert len(kind.closed) == 1


async def test_cancelling_the_block_still_drains(clock, store, kind):
    inside = asyncio.Event()

    async def node():
        async with a_registry(clock, store, kind) as registry:
            address = await opened(registry)
            registry.deliver(address, message)
            inside.set()
            await asyncio.Event().wait()

    async def takes_a_while(actor):
        for _ in range(20):
            await asyncio.sleep(0)
        return await increment(actor)

    message, outcome = envelope(takes_a_while)
    async with anyio.create_task_group() as group:
        group.start_soon(node)
        await inside.wait()
        group.cancel_scope.cancel()
    assert outcome.result() == 1
    assert len(kind.closed) == 1


async def test_cancelling_the_drain_of_the_block_ends_cleanly_and_at_once(clock, store, kind):
    inside = asyncio.Event()

    async def node():
        async with a_registry(clock, store, kind) as registry:
            address = await opened(registry)
            registry.deliver(address, message)
            inside.set()

    message, outcome = envelope(Gate())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(node())
        await inside.wait()
        await settle()
        assert not running.done()
        running.cancel()
    assert running.cancelled()
    assert outcome.cancelled()
    assert len(kind.closed) == 1
    assert len(asyncio.all_tasks()) == 1


async def test_draining_many_actors_that_close_slowly_is_bounded(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=512) as registry:
        closing, most = 0, 0

        async def slowly(actor):
            nonlocal closing, most
            closing += 1
            most = max(most, closing)
            await asyncio.sleep(0)
            closing -= 1

        for _ in range(300):
            await opened(registry)
        kind.on_close = slowly
        assert await registry.drain(10)
        assert len(kind.closed) == 300
        assert most <= 64


async def test_draining_twice_at_once_is_one_drain(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        await opened(registry)
        assert await asyncio.gather(registry.drain(10), registry.drain(10)) == [True, True]
        assert len(kind.closed) == 1
