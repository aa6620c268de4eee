"""How an actor comes to life, and what its first messages get if it does not."""

import asyncio

import pytest
from support.counting import CounterKind, Gate, a_registry, asleep, count, envelope, increment, opened
from understudy.actors import (
    Access,
    ActorEnded,
    ActorNotFound,
    ActorUnavailable,
    MailboxFull,
    NodeDraining,
    RegistryFull,
    RestartPolicy,
    SnapshotError,
    UnknownKind,
)
from understudy.actors.testing import settle
from understudy.stores import Address, StoreUnavailable


async def test_a_hundred_concurrent_first_messages_cause_one_claim(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await asleep(registry, 5)
        results = await asyncio.gather(
            *(registry.ask(address, increment) for _ in range(50)),
            *(registry.ask(address, count, access=Access.SHARED) for _ in range(50)),
        )
        assert results[:50] == list(range(6, 56))
        assert len(kind.rehydrated) == 1
        assert (await store.load(address)).epoch == 2


async def test_shared_messages_that_waited_for_the_activation_all_start_at_once(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await asleep(registry)
        gates = [Gate(), Gate(), Gate()]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.ask(address, gates[0]))
            for gate in gates[1:]:
                tasks.create_task(registry.ask(address, gate, access=Access.SHARED))
            await settle()
            assert kind.rehydrated[0].running == 3
            for gate in gates:
                gate.opened.set()


async def test_messages_that_wait_for_the_activation_are_bounded(clock, faulty, kind):
    async with a_registry(clock, faulty, kind, mailbox_size=3, shared_limit=2) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", "hang")
        outcomes = []
        for access in (Access.SHARED, Access.SHARED, Access.EXCLUSIVE):
            message, outcome = envelope(count, access=access)
            registry.deliver(address, message)
            outcomes.append(outcome)
            if len(outcomes) == 2:
                with pytest.raises(MailboxFull, match="2 shared messages wait"):
                    registry.tell(address, count, access=Access.SHARED)
        with pytest.raises(MailboxFull, match="3 messages wait"):
            registry.tell(address, count)
        await settle()
        faulty.release()
        assert await asyncio.gather(*outcomes) == [0, 0, 0]


async def test_a_shared_message_withdrawn_before_the_activation_is_not_counted_on(clock, faulty, kind):
    async with a_registry(clock, faulty, kind, mailbox_size=2) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", "hang")
        withdrawn, outcome = envelope(count, access=Access.SHARED)
        other, read = envelope(count, access=Access.SHARED)
        message, done = envelope(increment)
        registry.deliver(address, withdrawn)
        registry.deliver(address, other)
        withdrawn.cancel()
        registry.deliver(address, message)
        await settle()
        faulty.release()
        assert await done == 1
        assert await read >= 0
        assert outcome.cancelled()
        await settle()
        assert await registry.passivate(address)


async def test_an_address_without_a_record_is_not_found_and_not_remembered(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        for _ in range(3):
            address = Address.new("counter")
            with pytest.raises(ActorNotFound):
                await registry.ask(address, count)
            assert address not in registry
        stats = registry.stats()
        assert stats["refused_addresses"] == 0
        assert stats["activation_failures"] == 0


async def test_an_unknown_kind_is_refused_by_name(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        with pytest.raises(UnknownKind, match="'basket', but this node hosts: counter"):
            registry.tell(Address.new("basket"), count)


@pytest.mark.parametrize("fault", ["refuse", "lose", "hang", "hang_after"])
async def test_a_store_out_of_reach_fails_everyone_who_waits(clock, faulty, kind, fault):
    async with a_registry(clock, faulty, kind) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", fault)
        outcomes = []
        for _ in range(3):
            message, outcome = envelope(count)
            registry.deliver(address, message)
            outcomes.append(outcome)
        await clock.advance(5)
        assert all(isinstance(outcome.exception(), ActorUnavailable) for outcome in outcomes)
        assert not any(outcome.exception().outcome_unknown for outcome in outcomes)
        assert outcomes[0].exception() is not outcomes[1].exception()
        await clock.advance(1)
        assert await registry.ask(address, count) == 0


async def test_the_store_says_when_to_come_back(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", StoreUnavailable("restarting", outcome_unknown=False, retry_after=9))
        with pytest.raises(ActorUnavailable, match="restarting") as refusal:
            await registry.ask(address, count)
        assert refusal.value.retry_after == 9


async def test_an_unreadable_snapshot_is_reported_as_it_is_and_left_alone(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = Address.new("counter")
        await store.create(address, tenant="acme", owner="x", snapshot=b"from the future", ttl=60)
        with pytest.raises(SnapshotError, match="from the future"):
            await registry.ask(address, count)
        assert (await store.load(address)).snapshot == b"from the future"
        assert address not in registry


async def test_repeated_activation_failure_backs_off_exponentially(clock, faulty, kind):
    policy = RestartPolicy(backoff=1.0, max_backoff=4.0)
    async with a_registry(clock, faulty, kind, restarts=policy) as registry:
        address = await asleep(registry)
        waits = []
        for _ in range(5):
            faulty.fail_next("claim", "refuse")
            with pytest.raises(ActorUnavailable, match="cannot be activated"):
                await registry.ask(address, count)
            with pytest.raises(ActorUnavailable, match="tried again later") as refusal:
                registry.tell(address, count)
            waits.append(refusal.value.retry_after)
            await clock.advance(refusal.value.retry_after)
        for wait, longest in zip(waits, (1, 2, 4, 4, 4), strict=True):
            assert longest / 2 <= wait <= longest
        assert registry.stats()["backoffs"] == 5
        assert await registry.ask(address, count) == 0
        assert registry.stats()["refused_addresses"] == 0


async def test_an_activation_that_hangs_is_given_up(clock, store, kind):
    async with a_registry(clock, store, kind, activation_timeout=10) as registry:
        address = await asleep(registry)

        async def hang(cell):
            await asyncio.Event().wait()

        kind.on_rehydrate = hang
        message, outcome = envelope(count)
        registry.deliver(address, message)
        await clock.advance(10)
        assert isinstance(outcome.exception(), ActorUnavailable)
        assert address not in registry


async def test_a_kind_that_raises_fails_who_opens_and_leaves_nothing(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:

        async def fail(cell):
            raise LookupError("no such tenant surface")

        kind.on_create = fail
        address = Address.new("counter")
        first, outcome = envelope(increment)
        registry.open(address, 0, "acme", first)
        with pytest.raises(LookupError, match="no such tenant"):
            await outcome
        assert address not in registry
        assert registry.stats()["refused_addresses"] == 0


async def test_a_full_node_puts_the_least_recently_used_actor_to_sleep(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=3) as registry:
        first, second, third = [await opened(registry) for _ in range(3)]
        await registry.ask(first, count)
        fourth = await opened(registry)
        await settle()
        assert second not in registry
        assert all(address in registry for address in (first, third, fourth))
        assert await registry.ask(second, count) == 0
        assert third not in registry


async def test_a_node_full_of_busy_actors_refuses_new_ones_at_once(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=2) as registry:
        busy, pinned = await opened(registry), await opened(registry)
        assert registry.pin(pinned)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.ask(busy, gate))
            await gate.entered.wait()
            first, _ = envelope(increment)
            with pytest.raises(RegistryFull) as refusal:
                registry.open(Address.new("counter"), 0, "acme", first)
            assert refusal.value.retry_after > 0
            assert registry.stats()["live"] == 2
            gate.opened.set()
        await opened(registry)
        assert busy not in registry


async def test_actors_that_take_long_to_close_are_bounded_too(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=1) as registry:
        closing = Gate()

        async def slowly(actor):
            await closing.opened.wait()

        kind.on_close = slowly
        for _ in range(65):
            await opened(registry)
        first, _ = envelope(increment)
        with pytest.raises(RegistryFull):
            registry.open(Address.new("counter"), 0, "acme", first)
        assert registry.stats()["leaving"] == 64
        closing.opened.set()
        await settle()
        await opened(registry)


async def test_a_registry_that_has_not_begun_takes_nothing(clock, store, kind):
    registry = a_registry(clock, store, kind)
    with pytest.raises(NodeDraining):
        registry.tell(Address.new("counter"), count)
    assert registry.stats()["live"] == 0


@pytest.mark.parametrize("bound", ["max_live", "mailbox_size", "shared_limit"])
def test_a_bound_below_one_is_refused(clock, store, bound):
    with pytest.raises(ValueError, match=f"{bound} must be at least 1, not 0"):
        a_registry(clock, store, CounterKind(), **{bound: 0})


async def test_an_actor_that_ends_while_it_comes_to_life_never_gets_its_turn(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await asleep(registry)
        faulty.fail_next("claim", "hang")
        message, outcome = envelope(increment)
        reading, unread = envelope(count, access=Access.SHARED)
        registry.deliver(address, message)
        registry.deliver(address, reading)
        await settle()
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(registry.end(address))
            await settle()
            assert isinstance(outcome.exception(), ActorEnded)
            assert isinstance(unread.exception(), ActorEnded)
            with pytest.raises(ActorEnded):
                registry.tell(address, increment)
            faulty.release()
            await settle()
            assert ending.result() is True
        assert await faulty.inner.load(address) is None
