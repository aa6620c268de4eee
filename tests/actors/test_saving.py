"""What a turn's outcome is when its save does not go well: every fault of a store."""

import asyncio
import contextlib

import pytest
from support.counting import Gate, a_registry, asleep, count, envelope, increment, opened
from understudy.actors import (
    Access,
    ActorNotFound,
    ActorUnavailable,
    MailboxFull,
    OwnershipLost,
)
from understudy.actors.testing import settle
from understudy.stores import Address, RecordExists, StoreCorrupt, StoreUnavailable


async def stored(store, address) -> int:
    record = await store.load(address)
    assert record is not None
    return int(record.snapshot)


async def test_a_stale_owner_cannot_save_and_drops_its_copy(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        await store.claim(address, owner="node-2")
        with pytest.raises(OwnershipLost):
            await registry.ask(address, increment)
        assert await stored(store, address) == 5
        await settle()
        assert kind.closed == [address]
        assert registry.stats()["lost"] == 1
        assert await registry.ask(address, increment) == 6
        assert len(kind.rehydrated) == 1


async def test_what_waits_behind_a_stale_turn_goes_to_a_fresh_activation(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        gate = Gate()
        stale, lost = envelope(gate)
        registry.deliver(address, stale)
        await gate.entered.wait()
        waiting = []
        for _ in range(3):
            message, future = envelope(increment)
            registry.deliver(address, message)
            waiting.append(future)
        record = await store.claim(address, owner="node-2")
        await store.save(address, epoch=record.epoch, version=record.version + 1, snapshot=b"70", ttl=3600)
        gate.opened.set()
        assert await asyncio.gather(*waiting) == [71, 72, 73]
        assert isinstance(lost.exception(), OwnershipLost)
        assert registry.stats()["activations"] == 2
        assert registry._cells[address].redelivered == ()


async def test_what_was_redelivered_once_is_not_redelivered_again(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)

        async def usurped(actor):
            """Each turn finds that somebody else has claimed the record meanwhile."""
            await store.claim(address, owner="node-2")
            actor.value += 1

        outcomes = []
        for _ in range(3):
            message, future = envelope(usurped)
            registry.deliver(address, message)
            outcomes.append(future)
        await asyncio.wait(outcomes)
        assert all(isinstance(outcome.exception(), OwnershipLost) for outcome in outcomes)
        # The first two turns ran; the third had been redelivered when the second was lost, and never did.
        assert "while this message waited" in str(outcomes[2].exception())
        assert len(kind.rehydrated) == 1
        assert await registry.ask(address, count) == 5


async def test_a_message_that_waited_for_a_sleeper_still_has_its_second_chance(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)

        async def usurped(actor):
            await store.claim(address, owner="node-2")
            actor.value += 1

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.passivate(address))
            await asyncio.sleep(0)
            stale, lost = envelope(usurped)
            waiting, done = envelope(increment)
            registry.deliver(address, stale)
            registry.deliver(address, waiting)
        assert await done == 6
        assert isinstance(lost.exception(), OwnershipLost)
        assert len(kind.rehydrated) == 2


async def test_a_refused_save_is_tried_once_more(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "refuse")
        assert await registry.ask(address, increment) == 1
        assert registry.stats()["save_repeats"] == 1
        assert await stored(faulty.inner, address) == 1


async def test_a_save_refused_twice_fails_the_turn_and_the_actor_lives_on(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", StoreUnavailable("full", outcome_unknown=False, retry_after=7), times=2)
        with pytest.raises(ActorUnavailable, match="full") as refusal:
            await registry.ask(address, increment)
        assert not refusal.value.outcome_unknown
        assert refusal.value.retry_after == 7
        assert await registry.ask(address, count) == 0
        assert await registry.ask(address, increment) == 1
        assert kind.rehydrated == []
        assert await stored(faulty.inner, address) == 1


async def test_a_refusal_that_took_long_is_not_tried_again(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "hang")
        faulty.fail_next("save", "refuse")
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await clock.advance(1)

        async def refuse_at_last(*_, **__):
            raise StoreUnavailable("busy", outcome_unknown=False)

        faulty.inner.save, save = refuse_at_last, faulty.inner.save
        faulty.release()
        await settle()
        assert isinstance(outcome.exception(), ActorUnavailable)
        assert registry.stats()["save_repeats"] == 0
        faulty.inner.save = save


@pytest.mark.parametrize("fault", ["lose", "hang", "hang_after"])
async def test_a_save_without_an_answer_is_repeated_until_its_outcome_is_known(clock, faulty, kind, fault):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", fault)
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await clock.advance(5)
        assert outcome.result() == 1
        assert await stored(faulty.inner, address) == 1
        assert await registry.ask(address, increment) == 2
        assert kind.rehydrated == []


@pytest.mark.parametrize(("fault", "landed"), [("lose", 1), ("hang", 0), ("hang_after", 1)])
async def test_a_save_that_stays_unknown_is_told_and_the_next_use_finds_out(clock, faulty, kind, fault, landed):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", fault, times=3)
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await clock.advance(16)
        error = outcome.exception()
        assert isinstance(error, ActorUnavailable)
        assert error.outcome_unknown
        assert registry.stats()["in_doubt"] == 1
        assert registry.stats()["save_repeats"] <= 2
        assert await stored(faulty.inner, address) == landed
        assert await registry.ask(address, count) == landed
        assert kind.rehydrated[0].cell.record.epoch == 2


async def test_a_save_that_lands_late_is_fenced_by_the_next_activation(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        late = []

        async def swallow(address, **save):
            late.append(save)
            raise StoreUnavailable("cut off", outcome_unknown=True)

        faulty.inner.save, save = swallow, faulty.inner.save
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await clock.advance(16)
        assert outcome.exception().outcome_unknown
        faulty.inner.save = save
        assert await registry.ask(address, count) == 0
        with pytest.raises(Exception, match="another owner"):
            await save(address, **late[0])
        assert await registry.ask(address, increment) == 1


async def test_a_refusal_after_a_lost_answer_does_not_settle_what_happened(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "lose")
        faulty.fail_next("save", "refuse", times=2)
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await clock.advance(16)
        assert outcome.exception().outcome_unknown
        assert await registry.ask(address, count) == 1


class Usurper:
    """Loses the answer to a save and has another owner claim the record, and write to it, before the repeat."""

    def __init__(self, faulty, *, lands: bool, writes: tuple[bytes, ...]) -> None:
        self.faulty = faulty
        self.lands = lands
        self.writes = writes
        self.save = faulty.inner.save

    async def __call__(self, address, **save):
        store = self.faulty.inner
        store.save = self.save
        if self.lands:
            await store.save(address, **save)
        record = await store.claim(address, owner="node-2")
        for number, snapshot in enumerate(self.writes, 1):
            await store.save(address, epoch=record.epoch, version=record.version + number, snapshot=snapshot, ttl=60)
        raise StoreUnavailable("the answer was lost", outcome_unknown=True)


@pytest.mark.parametrize(
    ("lands", "writes", "unknown"),
    [
        (False, (), False),  # our version was never written
        (False, (b"41",), False),  # the other owner wrote it, with something else
        (False, (b"1",), True),  # the other owner counted to the same number: looks the same as
        (True, (), True),  # ours
        (True, (b"2",), True),
        (False, (b"1", b"2"), True),
    ],
)
async def test_a_repeat_that_meets_another_owner_reads_back_what_became_of_the_save(
    clock, faulty, kind, lands, writes, unknown
):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.inner.save = Usurper(faulty, lands=lands, writes=writes)
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await clock.advance(16)
        error = outcome.exception()
        if unknown:
            assert isinstance(error, ActorUnavailable)
            assert error.outcome_unknown
        else:
            assert isinstance(error, OwnershipLost)
        assert kind.closed == [address]
        assert await registry.ask(address, count) == int((*writes, b"1" if lands else b"0")[-1 if not writes else -2])


async def test_a_record_that_somebody_deleted_is_not_found_any_more(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await store.delete(address)
        waiting, outcome = envelope(count)
        message, failed = envelope(increment)
        registry.deliver(address, message)
        registry.deliver(address, waiting)
        with pytest.raises(ActorNotFound):
            await failed
        with pytest.raises(ActorNotFound):
            await outcome
        await settle()
        assert address not in registry
        assert registry.stats()["refused_addresses"] == 0


async def test_a_store_that_breaks_its_contract_leaves_the_outcome_unknown(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", StoreCorrupt("a damaged page"))
        with pytest.raises(ActorUnavailable) as failure:
            await registry.ask(address, increment)
        assert failure.value.outcome_unknown
        assert isinstance(failure.value.__cause__, StoreCorrupt)
        assert await registry.ask(address, count) == 0


async def test_the_first_save_creates_the_record(clock, store, kind):
    async with a_registry(clock, store, kind, owner="node-7") as registry:
        address = Address.new("counter")
        first, done = envelope(increment)
        registry.open(address, 41, "acme", first)
        assert await done == 42
        record = await store.load(address)
        assert (record.tenant, record.owner, record.epoch, record.version) == ("acme", "node-7", 1, 1)
        assert kind.created[0].cell.tenant == "acme"
        assert kind.created[0].cell.record == record


async def test_a_first_turn_that_fails_leaves_nothing(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = Address.new("counter")

        async def fail(actor):
            actor.value += 1
            raise ValueError("no")

        first, failed = envelope(fail)
        registry.open(address, 0, "acme", first)
        waiting, outcome = envelope(count)
        registry.deliver(address, waiting)
        with pytest.raises(ValueError, match="no"):
            await failed
        with pytest.raises(ActorNotFound):
            await outcome
        await settle()
        assert await store.load(address) is None
        assert address not in registry
        assert kind.closed == [address]


async def test_a_first_turn_that_changes_nothing_stores_nothing_and_drops_the_actor(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = Address.new("counter")

        async def leave_it(actor):
            actor.saved_value = actor.value
            return "nothing to keep"

        first, done = envelope(leave_it)
        registry.open(address, 0, "acme", first)
        assert await done == "nothing to keep"
        await settle()
        assert address not in registry
        assert await store.load(address) is None
        assert registry.stats()["unborn"] == 1


@pytest.mark.parametrize("fault", ["lose", "hang", "hang_after", "refuse"])
async def test_a_create_without_an_answer_is_settled_too(clock, faulty, kind, fault):
    async with a_registry(clock, faulty, kind) as registry:
        address = Address.new("counter")
        faulty.fail_next("create", fault)
        first, done = envelope(increment)
        registry.open(address, 0, "acme", first)
        await clock.advance(6)
        assert done.result() == 1
        assert await registry.ask(address, increment) == 2
        assert await stored(faulty.inner, address) == 2


async def test_a_create_that_stays_unknown_is_told_and_leaves_no_live_actor(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = Address.new("counter")
        faulty.fail_next("create", "hang", times=3)
        first, done = envelope(increment)
        registry.open(address, 0, "acme", first)
        await clock.advance(16)
        assert done.exception().outcome_unknown
        assert address not in registry


async def test_an_address_that_is_taken_cannot_be_opened(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        first, done = envelope(increment)
        with pytest.raises(RecordExists):
            registry.open(address, 0, "mallory", first)
        await registry.passivate(address)
        registry.open(address, 0, "mallory", first)
        with pytest.raises(RecordExists):
            await done
        assert await registry.ask(address, count) == 5


async def test_the_first_message_must_be_exclusive(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        first, _ = envelope(count, access=Access.SHARED)
        with pytest.raises(ValueError, match="must be exclusive"):
            registry.open(Address.new("counter"), 0, "acme", first)


async def test_shared_turns_of_a_lost_actor_are_cut_short_with_the_reason(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        reading, outcome = envelope(gate, access=Access.SHARED)
        registry.deliver(address, reading)
        await gate.entered.wait()
        await store.claim(address, owner="node-2")
        with pytest.raises(OwnershipLost):
            await registry.ask(address, increment)
        with pytest.raises(OwnershipLost):
            await outcome
        assert await registry.ask(address, count) == 0


@pytest.mark.parametrize("fault", ["refuse", "lose", "hang", "hang_after"])
@pytest.mark.parametrize("operation", ["create", "claim", "save", "delete"])
async def test_failures_leave_nothing_behind(clock, faulty, kind, operation, fault):
    async with a_registry(clock, faulty, kind, mailbox_size=4) as registry:
        await settle()
        tasks, timers = len(asyncio.all_tasks()), clock.timers
        address = await asleep(registry)
        faulty.fail_next(operation, fault, times=3)
        outcomes = []
        first, outcome = envelope(increment)
        registry.open(Address.new("counter"), 0, "acme", first)
        outcomes.append(outcome)
        for _ in range(6):
            message, outcome = envelope(increment, deadline=clock.monotonic() + 3600)
            try:
                registry.deliver(address, message)
            except MailboxFull:
                continue
            outcomes.append(outcome)
        await clock.advance(20)
        assert len(outcomes) == 5
        assert all(outcome.done() and (outcome.exception() or outcome.result()) for outcome in outcomes)
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(_ended(registry, address))
            await clock.advance(20)
            assert ending.done()
        faulty.enabled = False
        await clock.advance(600)
        stats = registry.stats()
        assert (stats["live"], stats["activating"], stats["leaving"], stats["waiting"]) == (0, 0, 0, 0)
        assert len(asyncio.all_tasks()) == tasks
        assert clock.timers == timers


async def _ended(registry, address):
    with contextlib.suppress(ActorUnavailable):
        await registry.end(address)
