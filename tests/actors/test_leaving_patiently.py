"""An actor that leaves for another node: what runs is finished, what waits is for the other."""

import asyncio

import pytest
from support.counting import Gate, a_registry, asleep, count, envelope, increment, opened
from support.patience import PATIENCE
from support.permits import Permits
from understudy.actors import Access, ActorEnded, Elsewhere, Envelope, OwnershipLost
from understudy.actors.testing import settle
from understudy.stores import Address

SHARED = Access.SHARED
WAYS = ("hand_off", "lapse")


@pytest.fixture(params=[False, True], ids=["alone", "gated"])
def options(request):
    return {"gate": Permits()} if request.param else {}


class Leaving:
    """`hand_off` in a task, or `lapse`; both are over when the actor is gone."""

    def __init__(self, tasks, registry, address, way):
        self.address = address
        self.registry = registry
        if way == "lapse":
            registry.lapse()
            self.task = None
        else:
            self.task = tasks.create_task(registry.hand_off(address))

    async def over(self):
        async with asyncio.timeout(PATIENCE):
            if self.task is not None:
                assert await self.task is True
            while self.address in self.registry:
                await asyncio.sleep(0)


def counted(registry, way):
    stats = registry.stats()
    return {"hand_off": stats["handed_off"], "lapse": stats["lapsed"]}[way]


def is_elsewhere(future):
    return isinstance(future.exception(), Elsewhere)


@pytest.mark.parametrize("way", WAYS)
async def test_a_quiet_actor_leaves_at_once_and_is_closed(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry, 4)
        saves = registry.stats()["saves"]
        await Leaving(tasks, registry, address, way).over()
        assert kind.closed == [address]
        assert counted(registry, way) == 1
        assert registry.stats()["saves"] == saves
        assert await registry.ask(address, increment) == 5, "and may come back"


@pytest.mark.parametrize("way", WAYS)
async def test_a_pinned_actor_leaves_too(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        registry.pin(address)
        await Leaving(tasks, registry, address, way).over()
        assert kind.closed == [address]


@pytest.mark.parametrize("way", WAYS)
async def test_what_runs_is_finished_and_saved_and_what_waits_or_comes_is_for_others(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        writing, reading = Gate(), Gate()
        exclusive, written = envelope(writing)
        shared, read = envelope(reading, access=SHARED)
        waiting, refused = envelope(increment)
        for message in (exclusive, shared, waiting):
            registry.deliver(address, message)
        await writing.entered.wait()
        await reading.entered.wait()
        leaving = Leaving(tasks, registry, address, way)
        await settle()
        assert is_elsewhere(refused), "at once, not when the turn is over"
        for message in (Envelope(increment), Envelope(count, SHARED)):
            with pytest.raises(Elsewhere):
                registry.deliver(address, message)
        assert registry.live(address) is kind.created[0], "signals still reach the turns"
        writing.opened.set()
        assert await written == "through"
        await settle()
        assert address in registry, "a shared turn runs"
        assert not kind.closed
        reading.opened.set()
        assert await read == "through"
        await leaving.over()
        assert kind.closed == [address]
        assert kind.created[0].rollbacks == 0
        assert (await store.load(address)).snapshot == b"20"


@pytest.mark.parametrize("way", WAYS)
async def test_a_shared_turn_alone_is_waited_for(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        reading = Gate()
        shared, read = envelope(reading, access=SHARED)
        registry.deliver(address, shared)
        await reading.entered.wait()
        leaving = Leaving(tasks, registry, address, way)
        await clock.advance(60)
        assert not kind.closed
        reading.opened.set()
        assert await read == "through"
        await leaving.over()


@pytest.mark.parametrize("way", WAYS)
async def test_one_shared_turn_that_ends_does_not_cut_another_short(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        gates = [Gate(), Gate()]
        turns = [envelope(gate, access=SHARED) for gate in gates]
        for message, _ in turns:
            registry.deliver(address, message)
        await settle()
        leaving = Leaving(tasks, registry, address, way)
        await settle()
        for gate, (_, outcome) in zip(gates, turns, strict=True):
            assert not kind.closed
            gate.opened.set()
            assert await outcome == "through"
        await leaving.over()


@pytest.mark.parametrize("way", WAYS)
async def test_turns_that_are_about_to_begin_count_as_running(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        turns = [envelope(increment), envelope(count, access=SHARED)]
        for message, _ in turns:
            registry.deliver(address, message)
        leaving = Leaving(tasks, registry, address, way)
        assert [await outcome for _, outcome in turns] in ([1, 0], [1, 1])
        await leaving.over()


@pytest.mark.parametrize("way", WAYS)
async def test_what_waits_for_an_activation_is_for_others(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await asleep(registry)
        rehydrating = asyncio.Event()

        async def slowly(_):
            await rehydrating.wait()

        kind.on_rehydrate = slowly
        outcomes = []
        for access in (Access.EXCLUSIVE, SHARED):
            message, outcome = envelope(count, access=access)
            registry.deliver(address, message)
            outcomes.append(outcome)
        await settle()
        leaving = Leaving(tasks, registry, address, way)
        await settle()
        assert all(is_elsewhere(outcome) for outcome in outcomes)
        with pytest.raises(Elsewhere):
            registry.deliver(address, Envelope(count))
        rehydrating.set()
        await leaving.over()
        assert kind.closed == [address, address]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", ["while it is created", "in its first turn"])
async def test_a_new_actor_is_opened_and_saved_first(clock, store, kind, options, way, moment):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = Address.new("counter")
        creating, first = asyncio.Event(), Gate()

        async def slowly(_):
            await creating.wait()

        if moment == "while it is created":
            kind.on_create = slowly
        opening, outcome = envelope(first)
        registry.open(address, 0, "acme", opening)
        later = [envelope(increment), envelope(increment)]
        registry.deliver(address, later[0][0])
        if moment == "in its first turn":
            await first.entered.wait()
        else:
            registry.deliver(address, later[1][0])
        leaving = Leaving(tasks, registry, address, way)
        await settle()
        assert is_elsewhere(later[0][1])
        creating.set()
        await first.entered.wait()
        first.opened.set()
        assert await outcome == "through"
        await leaving.over()
        assert (await store.load(address)).snapshot == b"10"


async def test_a_new_actor_whose_first_turn_fails_has_never_been(clock, store, kind):
    async def refuse(_):
        raise ValueError

    async with a_registry(clock, store, kind) as registry:
        address = Address.new("counter")
        opening, outcome = envelope(refuse)
        registry.open(address, 0, "acme", opening)
        assert await registry.hand_off(address) is False
        assert isinstance(outcome.exception(), ValueError)
        assert registry.stats()["unborn"] == 1
        assert registry.stats()["handed_off"] == 0


@pytest.mark.parametrize("way", WAYS)
async def test_an_end_that_the_last_turn_asks_for_still_comes(clock, store, kind, options, way):
    async def finish(actor):
        await gate(actor)
        actor.cell.end_soon()
        return "over"

    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        gate = Gate()
        message, outcome = envelope(finish)
        registry.deliver(address, message)
        await gate.entered.wait()
        if way == "lapse":
            registry.lapse()
        else:
            handing = tasks.create_task(registry.hand_off(address))
        await settle()
        gate.opened.set()
        assert await outcome == "over"
        if way == "hand_off":
            assert await handing is False, "there is nothing to move"
        assert await store.load(address) is None
        assert registry.stats()["ended"] == 1


@pytest.mark.parametrize("way", WAYS)
async def test_an_end_from_outside_does_not_wait_for_the_turns(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        running, outcome = envelope(Gate())
        registry.deliver(address, running)
        await settle()
        if way == "lapse":
            registry.lapse()
        else:
            handing = tasks.create_task(registry.hand_off(address))
            await settle()
        assert await registry.end(address) is True
        assert outcome.cancelled()
        assert await store.load(address) is None
        if way == "hand_off":
            assert await handing is False


@pytest.mark.parametrize("way", WAYS)
async def test_a_last_turn_that_may_not_save_is_told_so(clock, store, kind, options, way):
    async with a_registry(clock, store, kind, **options) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        gate = Gate()
        running, outcome = envelope(gate)
        registry.deliver(address, running)
        await gate.entered.wait()
        if way == "lapse":
            registry.lapse()
        else:
            handing = tasks.create_task(registry.hand_off(address))
            await settle()
        await store.claim(address, owner="node-2")
        gate.opened.set()
        await settle()
        assert isinstance(outcome.exception(), OwnershipLost)
        assert kind.created[0].rollbacks == 1
        assert registry.stats()["lost"] == 1
        if way == "hand_off":
            assert await handing is False


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_running_turn_sends_itself_to_save_its_change_is_still_handled(clock, store, kind, way):
    permits = Permits()
    async with a_registry(clock, store, kind, gate=permits) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        gates = [Gate(), Gate()]

        def merging(gate):
            async def turn(actor):
                gate.entered.set()
                await gate.opened.wait()
                return await registry.ask(address, increment, inner=True, timeout=10)

            return turn

        turns = [envelope(merging(gate), access=SHARED) for gate in gates]
        for message, _ in turns:
            registry.deliver(address, message)
        for gate in gates:
            await gate.entered.wait()
        leaving = Leaving(tasks, registry, address, way)
        await settle()
        permits.lease = way != "lapse"
        with pytest.raises(Elsewhere):
            registry.deliver(address, Envelope(increment))
        for gate in gates:
            gate.opened.set()
        assert sorted([await outcome for _, outcome in turns]) == [1, 2]
        await leaving.over()
        assert (await store.load(address)).snapshot == b"2"
        assert kind.closed == [address]


async def test_what_waits_to_save_for_a_running_turn_is_spared(clock, store, kind):
    async with a_registry(clock, store, kind) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        gate = Gate()
        registry.deliver(address, envelope(gate)[0])

        async def merging(actor):
            return await registry.ask(address, increment, inner=True)

        shared, merged = envelope(merging, access=SHARED)
        registry.deliver(address, shared)
        other, refused = envelope(increment)
        await settle()
        registry.deliver(address, other)
        handing = tasks.create_task(registry.hand_off(address))
        await settle()
        assert is_elsewhere(refused)
        assert not merged.done()
        gate.opened.set()
        assert await merged == 11
        assert await handing is True


async def test_handing_off_what_is_not_live_says_so(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await asleep(registry)
        assert await registry.hand_off(address) is False
        assert await registry.hand_off(Address.new("counter")) is False
        assert len(kind.rehydrated) == 0


async def test_handing_off_twice_at_once_is_one_hand_off(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        assert await asyncio.gather(registry.hand_off(address), registry.hand_off(address)) == [True, True]
        assert registry.stats()["handed_off"] == 1


async def test_cancelling_a_hand_off_does_not_stop_it(clock, store, kind):
    async with a_registry(clock, store, kind) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        gate = Gate()
        registry.deliver(address, envelope(gate)[0])
        await gate.entered.wait()
        handing = tasks.create_task(registry.hand_off(address))
        await settle()
        handing.cancel()
        await settle()
        assert address in registry
        gate.opened.set()
        await settle()
        assert address not in registry


async def test_handing_off_an_actor_that_cannot_be_activated_says_so(clock, faulty, kind):
    async with a_registry(clock, faulty, kind, store_timeout=1) as registry, asyncio.TaskGroup() as tasks:
        address = await asleep(registry)
        faulty.fail_next("claim", "hang")
        message, outcome = envelope(count)
        registry.deliver(address, message)
        await settle()
        handing = tasks.create_task(registry.hand_off(address))
        await clock.advance(2)
        assert is_elsewhere(outcome)
        assert await handing is False


async def test_a_sleeping_actor_that_waiting_messages_bring_back_is_handed_off_then(clock, store, kind):
    async with a_registry(clock, store, kind) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        closing = asyncio.Event()

        async def slowly(_):
            await closing.wait()

        kind.on_close = slowly
        passivating = tasks.create_task(registry.passivate(address))
        await settle()
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        handing = tasks.create_task(registry.hand_off(address))
        await settle()
        closing.set()
        assert await passivating is True
        assert await handing is True
        # Its turn had come, or it was for others; never both, never neither.
        assert outcome.exception() is None or is_elsewhere(outcome)
        assert address not in registry


async def test_a_node_that_stops_cuts_those_that_leave_patiently_too(clock, store, kind):
    async with a_registry(clock, store, kind) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        running, outcome = envelope(Gate())
        registry.deliver(address, running)
        await settle()
        handing = tasks.create_task(registry.hand_off(address))
        draining = tasks.create_task(registry.drain(10))
        await clock.advance(11)
        assert await draining is False
        assert outcome.cancelled()
        assert await handing is False


async def test_an_ended_actor_stays_ended(clock, store, kind):
    async with a_registry(clock, store, kind) as registry, asyncio.TaskGroup() as tasks:
        address = await opened(registry)
        gate = Gate()
        registry.deliver(address, envelope(gate)[0])
        waiting, refused = envelope(increment)
        registry.deliver(address, waiting)
        await gate.entered.wait()
        ending = tasks.create_task(registry.end(address))
        await settle(1)
        registry.lapse()
        assert await registry.hand_off(address) is False
        assert await ending is True
        assert isinstance(refused.exception(), ActorEnded)


# Many


async def test_addresses_are_listed_least_recently_used_first(clock, store, kind):
    async with a_registry(clock, store, kind) as registry, asyncio.TaskGroup() as tasks:
        addresses = [await opened(registry) for _ in range(4)]
        await registry.ask(addresses[0], count)
        registry.deliver(addresses[1], envelope(Gate())[0])
        gone = await asleep(registry)
        await settle()
        listed = registry.addresses()
        assert listed == [addresses[2], addresses[3], addresses[0], addresses[1]]
        assert gone not in listed
        assert registry.count == 4
        leaving = tasks.create_task(registry.hand_off(addresses[1]))
        await settle()
        assert registry.addresses() == listed[:3]
        await registry.end(addresses[1])
        await leaving


async def test_ten_thousand_lapse_at_once_and_close_in_slices(clock, store, kind):
    many = 10_000
    async with a_registry(clock, store, kind, max_live=many + 8) as registry:
        addresses = [await opened(registry) for _ in range(many)]
        closing, most = 0, 0

        async def counting(_):
            nonlocal closing, most
            closing += 1
            most = max(most, closing)
            await asyncio.sleep(0)
            closing -= 1

        kind.on_close = counting
        registry.lapse()
        assert registry.stats()["leaving"] == 0, "they are marked; the rest is done in slices"
        # From here on, none takes anything.
        for address in (addresses[0], addresses[-1]):
            with pytest.raises(Elsewhere):
                registry.tell(address, increment)
        assert registry.addresses() == []
        assert registry.stats()["idle"] == 0
        slices = 0
        while registry.count:
            await asyncio.sleep(0)
            slices += 1
        assert slices >= many / 64
        assert registry.stats()["lapsed"] == many
        assert len(kind.closed) == many
        assert most <= max(64, (many + 8) // 8)


async def test_a_lapse_beside_a_drain_ends_both(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        for _ in range(200):
            await opened(registry)
        registry.lapse()
        assert await registry.drain(10) is True
        assert len(kind.closed) == 200
        assert registry.stats()["lapsed"] == 200


async def test_a_lapse_of_an_empty_registry_does_nothing(clock, store, kind):
    registry = a_registry(clock, store, kind)
    registry.lapse()
    async with registry:
        registry.lapse()
        address = await opened(registry)
    assert registry.stats()["lapsed"] == 0
    assert kind.closed == [address]


async def test_a_cell_that_lapsed_makes_room_only_when_it_is_gone(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=2) as registry:
        for _ in range(2):
            await opened(registry)
        registry.lapse()
        await settle()
        assert registry.count == 0
        assert await opened(registry)
