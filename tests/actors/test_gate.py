"""A node that is one of many runs and claims only what its gate lets it."""

import asyncio
import contextvars
from typing import Any

import pytest
from support.counting import Gate, a_registry, asleep, count, envelope, increment, opened
from support.permits import Permits
from understudy.actors import (
    Access,
    ActorNotFound,
    Departure,
    Elsewhere,
    Envelope,
    NodeDraining,
    OwnershipLost,
    RegistryFull,
)
from understudy.actors.testing import settle
from understudy.stores import Address, UnderstudyError

SHARED = Access.SHARED


def is_elsewhere(future: asyncio.Future[Any], address: Address) -> bool:
    error = future.exception()
    return isinstance(error, Elsewhere) and error.address == address


@pytest.fixture
def permits() -> Permits:
    return Permits()


def test_elsewhere_is_control_flow_that_nobody_takes_for_an_error_of_ours():
    address = Address.new("counter")
    assert not isinstance(Elsewhere(address), UnderstudyError)
    assert str(address) in str(Elsewhere(address))


# Who may be claimed


async def test_only_what_may_be_claimed_is_woken(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address, other = await asleep(registry, 3), await asleep(registry)
        permits.mine = {address}
        assert await registry.ask(address, increment) == 4
        for refused in (
            lambda: registry.deliver(other, Envelope(increment)),
            lambda: registry.tell(other, increment),
        ):
            with pytest.raises(Elsewhere) as elsewhere:
                refused()
            assert elsewhere.value.address == other
        with pytest.raises(Elsewhere):
            await registry.ask(other, increment)
        assert (await store.load(other)).epoch == 1, "not claimed"


async def test_a_claim_that_the_gate_does_not_confirm_runs_no_turn_and_leaves_no_actor(clock, store, kind, permits):
    epochs: list[int] = []

    async def refuse() -> bool:
        return False

    def claimed(address: Address, epoch: int):
        epochs.append(epoch)
        return refuse()

    permits.claimed = claimed
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await asleep(registry, 3)
        waiting = [envelope(increment), envelope(count, access=SHARED)]
        for message, _ in waiting:
            registry.deliver(address, message)
        await settle()
        assert all(is_elsewhere(outcome, address) for _, outcome in waiting)
        assert epochs == [2]
        assert address not in registry
        assert registry.stats()["activation_failures"] == registry.stats()["rehydrated"] == 0
        permits.claimed = lambda address, epoch: None
        assert await registry.ask(address, increment) == 4, "nothing ran, and nobody is refused for it"


async def test_what_lives_is_served_though_it_could_not_be_claimed_now(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        permits.mine = set()
        assert await registry.ask(address, increment) == 1
        registry.tell(address, increment)
        assert await registry.ask(address, count, access=SHARED) == 1
        assert await registry.ask(address, count) == 2


async def test_a_new_actor_needs_no_claim(clock, store, kind, permits):
    permits.mine = set()
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        assert (await store.load(address)).epoch == 1


async def test_what_sleeps_elsewhere_is_not_ended_here(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address, live = await asleep(registry), await opened(registry)
        permits.mine = set()
        with pytest.raises(Elsewhere):
            await registry.end(address)
        assert await store.load(address) is not None
        assert await registry.end(live) is True
        permits.mine = {address}
        assert await registry.end(address) is True
        assert await store.load(address) is None


async def test_an_end_that_finds_another_owner_is_for_that_one(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        await store.claim(address, owner="node-2")
        with pytest.raises(Elsewhere):
            await registry.end(address)
        assert (await store.load(address)).owner == "node-2"


async def test_an_address_that_may_be_claimed_and_has_no_record_is_unknown(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        with pytest.raises(ActorNotFound):
            await registry.ask(Address.new("counter"), increment)


# Whether turns may start


async def test_a_node_without_a_lease_takes_nothing(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address, sleeping = await opened(registry), await asleep(registry)
        permits.lease = False
        for refused in (
            lambda: registry.deliver(address, Envelope(increment)),
            lambda: registry.deliver(address, Envelope(count, SHARED)),
            lambda: registry.deliver(sleeping, Envelope(increment)),
            lambda: registry.tell(address, increment),
            lambda: registry.open(Address.new("counter"), 0, "acme", Envelope(increment)),
        ):
            with pytest.raises(Elsewhere):
                refused()
        for refused in (registry.ask(address, count), registry.end(address), registry.end(sleeping)):
            with pytest.raises(Elsewhere):
                await refused
        permits.lease = True
        assert await registry.ask(address, count) == 0, "nothing ran, and the actor was there all the time"


@pytest.mark.parametrize("with_context", [False, True])
async def test_turns_whose_time_comes_without_a_lease_are_not_started(clock, store, kind, permits, with_context):
    context = contextvars.copy_context if with_context else lambda: None
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        gate = Gate()
        running, done = envelope(gate)
        waiting = [envelope(increment, context=context()) for _ in range(3)]
        for message, _ in [(running, done), *waiting]:
            registry.deliver(address, message)
        await gate.entered.wait()
        permits.lease = False
        gate.opened.set()
        # The store judges what the turn that ran has saved.
        assert await done == "through"
        await settle()
        assert all(is_elsewhere(outcome, address) for _, outcome in waiting)
        permits.lease = True
        assert await registry.ask(address, count) == 10


async def test_shared_turns_that_have_not_begun_are_not_started_without_a_lease(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        message, outcome = envelope(count, access=SHARED)
        registry.deliver(address, message)
        permits.lease = False
        await settle()
        assert is_elsewhere(outcome, address)
        assert kind.created[0].most_running == 1, "the opening"
        permits.lease = True
        assert await registry.ask(address, count, access=SHARED) == 0
        assert registry.stats()["idle"] == 1


async def test_what_waits_for_an_activation_is_not_started_when_the_lease_is_over_by_then(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await asleep(registry, 5)
        started = registry.stats()["turns_started"]
        rehydrating = asyncio.Event()

        async def slowly(cell):
            await rehydrating.wait()

        kind.on_rehydrate = slowly
        outcomes = []
        for access in (Access.EXCLUSIVE, SHARED, Access.EXCLUSIVE):
            message, outcome = envelope(count, access=access)
            registry.deliver(address, message)
            outcomes.append(outcome)
        await settle()
        permits.lease = False
        rehydrating.set()
        await settle()
        assert all(is_elsewhere(outcome, address) for outcome in outcomes)
        assert registry.stats()["turns_started"] == started
        permits.lease = True
        assert await registry.ask(address, count) == 5


async def test_the_opening_of_an_actor_that_was_taken_is_finished(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = Address.new("counter")
        message, outcome = envelope(increment)
        registry.open(address, 0, "acme", message)
        permits.lease = False
        assert await outcome == 1
        assert (await store.load(address)).snapshot == b"1"


async def test_a_deadline_of_a_message_that_is_sent_elsewhere_leaves_no_timer(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        timers = clock.timers
        gate = Gate()
        registry.deliver(address, envelope(gate)[0])
        message, outcome = envelope(increment, deadline=clock.monotonic() + 60)
        registry.deliver(address, message)
        await gate.entered.wait()
        assert clock.timers == timers + 1
        permits.lease = False
        gate.opened.set()
        await settle()
        assert is_elsewhere(outcome, address)
        assert clock.timers == timers


async def test_a_withdrawn_message_is_withdrawn_also_without_a_lease(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        gate = Gate()
        registry.deliver(address, envelope(gate)[0])
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await gate.entered.wait()
        message.cancel()
        permits.lease = False
        gate.opened.set()
        await settle()
        assert outcome.cancelled()


# Who has lost its record


async def test_what_waits_for_an_actor_that_another_node_has_claimed_is_for_that_node(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry:
        address = await opened(registry)
        gate = Gate()
        running, done = envelope(gate)
        waiting = [envelope(increment), envelope(count)]
        for message, _ in [(running, done), *waiting]:
            registry.deliver(address, message)
        await gate.entered.wait()
        await store.claim(address, owner="node-2")
        gate.opened.set()
        await settle()
        # It ran, so that it is not sent anywhere.
        assert isinstance(done.exception(), OwnershipLost)
        assert all(is_elsewhere(outcome, address) for _, outcome in waiting)
        assert address not in registry
        assert (await store.load(address)).owner == "node-2"


async def test_without_a_gate_the_same_messages_are_delivered_once_more(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        registry.deliver(address, envelope(gate)[0])
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await gate.entered.wait()
        await store.claim(address, owner="node-2")
        gate.opened.set()
        assert await outcome == 1


async def test_what_waits_for_an_actor_that_sleeps_goes_elsewhere_if_it_may_not_be_woken(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        closing = asyncio.Event()

        async def slowly(_):
            await closing.wait()

        kind.on_close = slowly
        passivating = tasks.create_task(registry.passivate(address))
        await settle()
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        permits.mine = set()
        closing.set()
        await passivating
        await settle()
        assert is_elsewhere(outcome, address)


# The door


async def test_a_closed_door_keeps_new_ones_out_and_those_inside_alive(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address, sleeping = await opened(registry), await asleep(registry, 7)
        registry.close_door()
        for refused in (
            lambda: registry.open(Address.new("counter"), 0, "acme", Envelope(increment)),
            lambda: registry.deliver(sleeping, Envelope(increment)),
        ):
            with pytest.raises(NodeDraining):
                refused()
        assert await registry.ask(address, increment) == 1
        assert address in registry
        registry.reopen()
        assert await registry.ask(sleeping, increment) == 8
        assert await opened(registry)


async def test_a_drained_node_that_is_reopened_takes_new_ones(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 2)
        assert await registry.drain(10)
        with pytest.raises(NodeDraining):
            await registry.ask(address, count)
        registry.reopen()
        assert await registry.ask(address, increment) == 3
        assert registry.stats()["idle"] == 1, "it stays, though it is idle"


async def test_reopening_ends_a_drain_that_waits_and_cuts_nobody(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        busy, pinned = await opened(registry), await opened(registry)
        gate = Gate()
        message, done = envelope(gate)
        registry.deliver(busy, message)
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(registry.drain(10))
            await settle()
            registry.reopen()
            await settle()
            assert draining.done()
        assert draining.result() is False
        await clock.advance(60)
        assert not done.done()
        gate.opened.set()
        assert await done == "through"
        assert await registry.ask(pinned, increment) == 1


async def test_reopening_in_the_moment_in_which_a_drain_loses_patience_cuts_nobody_either(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        message, done = envelope(gate)
        registry.deliver(address, message)
        await settle()
        clock.call_at(clock.monotonic() + 10, registry.reopen)
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(registry.drain(10))
            await clock.advance(10)
        assert draining.result() is False
        gate.opened.set()
        assert await done == "through"


async def test_a_registry_that_does_not_run_cannot_be_reopened(clock, store, kind):
    registry = a_registry(clock, store, kind)
    with pytest.raises(RuntimeError, match="does not run"):
        registry.reopen()
    async with registry:
        pass
    with pytest.raises(RuntimeError, match="does not run"):
        registry.reopen()


# The observer


class Journal:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def activated(self, cell, *, rehydrated):
        self.lines.append((cell.address, cell.record.epoch if rehydrated else None))

    def departed(self, cell, departure):
        self.lines.append((cell.address, departure))


async def test_the_observer_can_read_the_epoch_of_the_claim(clock, store, kind):
    journal = Journal()
    async with a_registry(clock, store, kind, observer=journal) as registry:
        address = await asleep(registry)
        await store.claim(address, owner="node-2")
        await registry.ask(address, count)
        assert journal.lines == [(address, None), (address, Departure.PASSIVATED), (address, 3)]


@pytest.mark.parametrize("reason", [Departure.LAPSED, Departure.HANDED_OFF])
async def test_the_observer_is_told_of_those_that_left_for_other_nodes(clock, store, kind, reason):
    journal = Journal()
    async with a_registry(clock, store, kind, observer=journal) as registry:
        address = await opened(registry)
        if reason is Departure.LAPSED:
            registry.lapse()
            await settle()
        else:
            await registry.hand_off(address)
        assert journal.lines[-1] == (address, reason)


async def test_a_full_node_still_says_that_it_is_full(clock, store, kind, permits):
    async with a_registry(clock, store, kind, gate=permits, max_live=1) as registry:
        address = await opened(registry)
        registry.pin(address)
        with pytest.raises(RegistryFull):
            registry.open(Address.new("counter"), 0, "acme", Envelope(increment))
