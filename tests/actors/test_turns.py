"""Turns: one exclusive at a time, shared ones beside it, failures that stay with their caller."""

import asyncio
import contextvars
import logging
import time

import pytest
from support.counting import CounterKind, Gate, a_registry, count, envelope, increment, opened, spoil
from understudy.actors import Access, ActorUnavailable, MailboxFull, RestartPolicy, TurnCancelled
from understudy.actors import cell as cell_module
from understudy.actors.testing import settle
from understudy.stores import Address


async def test_a_thousand_concurrent_exclusive_increments_are_serial(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        results = await asyncio.gather(*(registry.ask(address, increment) for _ in range(1000)))
        assert results == list(range(1, 1001))
        assert kind.created[0].most_running == 1
        record = await store.load(address)
        assert record is not None
        assert (record.snapshot, record.version) == (b"1000", 1001)


CALLER = contextvars.ContextVar("caller", default="nobody")


@pytest.mark.parametrize("own_context", [lambda n: n % 2 == 0, lambda n: n % 3 == 0, lambda n: True, lambda n: n > 50])
async def test_turns_with_and_without_a_context_of_their_own_keep_their_order(clock, store, kind, own_context):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        seen: list[tuple[int, str]] = []

        def note(number: int):
            async def message(actor):
                await asyncio.sleep(0)
                seen.append((number, CALLER.get()))
                await asyncio.sleep(0)

            return message

        futures, expected = [], []
        for number in range(100):
            context = contextvars.copy_context() if own_context(number) else None
            if context is not None:
                context.run(CALLER.set, f"caller {number}")
            message, future = envelope(note(number), context=context)
            registry.deliver(address, message)
            futures.append(future)
            expected.append((number, f"caller {number}" if context else "nobody"))
        await asyncio.gather(*futures)
        assert seen == expected
        assert kind.created[0].most_running == 1


async def who(actor):
    await asyncio.sleep(0)
    return CALLER.get()


@pytest.mark.parametrize("access", Access)
async def test_a_turn_sees_the_context_of_its_envelope(clock, store, kind, access):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        context = contextvars.copy_context()
        context.run(CALLER.set, "ada")
        message, future = envelope(who, context=context, access=access)
        registry.deliver(address, message)
        assert await future == "ada"


async def test_a_turn_without_a_context_sees_the_registrys_and_not_its_callers(clock, store, kind):
    CALLER.set("the node")
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        CALLER.set("ada")
        assert await registry.ask(address, who) == "the node"
        assert await registry.ask(address, who, access=Access.SHARED) == "the node"


async def test_shared_turns_run_at_once_beside_an_exclusive_one_and_each_other(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        exclusive, shared = Gate(), [Gate(), Gate()]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.ask(address, exclusive))
            await exclusive.entered.wait()
            for gate in shared:
                tasks.create_task(registry.ask(address, gate, access=Access.SHARED))
                await gate.entered.wait()
            assert kind.created[0].running == 3
            for gate in (*shared, exclusive):
                gate.opened.set()


async def test_a_shared_turn_saves_nothing(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        await registry.ask(address, increment, access=Access.SHARED)
        assert registry.stats()["saves"] == 1


async def test_shared_turns_of_one_actor_are_bounded(clock, store, kind):
    async with a_registry(clock, store, kind, shared_limit=2) as registry:
        address = await opened(registry)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(registry.ask(address, gate, access=Access.SHARED))
            await gate.entered.wait()
            with pytest.raises(MailboxFull, match="2 shared turns run") as refusal:
                await registry.ask(address, count, access=Access.SHARED)
            assert refusal.value.retry_after > 0
            gate.opened.set()
        assert await registry.ask(address, count, access=Access.SHARED) >= 0


async def test_a_full_mailbox_refuses_at_once_and_loses_nothing(clock, store, kind):
    async with a_registry(clock, store, kind, mailbox_size=3) as registry:
        address = await opened(registry)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.ask(address, gate))
            await gate.entered.wait()
            waiting = [tasks.create_task(registry.ask(address, increment)) for _ in range(3)]
            await settle()
            with pytest.raises(MailboxFull, match="3 messages wait"):
                registry.tell(address, increment)
            assert registry.stats()["waiting"] == 3
            gate.opened.set()
        assert [task.result() for task in waiting] == [11, 12, 13]


async def test_a_withdrawn_message_makes_room_in_a_full_mailbox(clock, store, kind):
    async with a_registry(clock, store, kind, mailbox_size=1) as registry:
        address = await opened(registry)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.ask(address, gate))
            await gate.entered.wait()
            withdrawn, outcome = envelope(increment)
            registry.deliver(address, withdrawn)
            withdrawn.cancel()
            other = tasks.create_task(registry.ask(address, count))
            await settle()
            assert outcome.cancelled()
            gate.opened.set()
        assert other.result() == 10


async def test_a_withdrawn_message_never_gets_its_turn(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registry.ask(address, gate))
            await gate.entered.wait()
            withdrawn, outcome = envelope(increment)
            registry.deliver(address, withdrawn)
            withdrawn.cancel()
            gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await outcome
        assert await registry.ask(address, count) == 10


async def test_cancelling_who_asks_withdraws_a_waiting_message_but_not_a_running_turn(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(registry.ask(address, gate))
            await gate.entered.wait()
            waiting = tasks.create_task(registry.ask(address, increment))
            await settle()
            running.cancel()
            waiting.cancel()
            await settle()
            gate.opened.set()
        assert await registry.ask(address, count) == 10


async def test_a_turn_that_raises_fails_its_caller_and_leaves_the_state_as_last_saved(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        with pytest.raises(ValueError, match="spoilt"):
            await registry.ask(address, spoil)
        assert await registry.ask(address, increment) == 6
        assert len(kind.created) == 1
        assert kind.rehydrated == []
        assert registry.stats()["turns_failed"] == 1


async def test_a_turn_that_cancels_itself_fails_as_cancelled_and_the_next_one_runs(clock, store, kind):
    async def give_up(actor):
        actor.value += 100
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        following, done = envelope(increment)
        message, outcome = envelope(give_up)
        registry.deliver(address, message)
        registry.deliver(address, following)
        with pytest.raises(asyncio.CancelledError):
            await outcome
        assert await done == 6
        with pytest.raises(TurnCancelled):
            await registry.ask(address, give_up)


async def test_a_snapshot_that_raises_fails_the_turn_and_rolls_it_back(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        actor = kind.created[0]

        def refuse():
            del actor.snapshot
            raise TypeError("a socket cannot be saved")

        actor.snapshot = refuse
        with pytest.raises(TypeError, match="a socket"):
            await registry.ask(address, increment)
        assert await registry.ask(address, count) == 5


async def test_a_clean_turn_saves_nothing(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        saves = registry.stats()["saves"]
        assert await registry.ask(address, count) == 0
        assert registry.stats()["saves"] == saves


async def test_a_reply_leaves_after_its_snapshot_is_saved(clock, faulty, kind):
    async with a_registry(clock, faulty, kind) as registry:
        address = await opened(registry)
        faulty.fail_next("save", "hang")
        message, outcome = envelope(increment)
        registry.deliver(address, message)
        await settle()
        assert faulty.hanging == 1
        assert not outcome.done()
        faulty.release()
        assert await outcome == 1
        record = await faulty.inner.load(address)
        assert record.snapshot == b"1"


async def test_a_failed_message_that_nobody_waits_for_is_logged(clock, store, kind, caplog):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        with caplog.at_level(logging.WARNING, logger="understudy.actors"):
            registry.tell(address, spoil)
            await settle()
        assert "nobody waits for" in caplog.text
        assert str(address) in caplog.text


async def test_a_reply_that_raises_harms_nobody(clock, store, kind, caplog):
    class Broken:
        def resolve(self, result):
            raise RuntimeError("broken reply")

        def fail(self, error):
            raise RuntimeError("broken reply")

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        for message, access in ((increment, Access.EXCLUSIVE), (spoil, Access.EXCLUSIVE), (spoil, Access.SHARED)):
            broken, _ = envelope(message, access=access)
            broken.reply = Broken()
            registry.deliver(address, broken)
            await settle()
        assert await registry.ask(address, count) >= 1
        assert "broken reply" in caplog.text


@pytest.mark.parametrize(("seconds", "at_most"), [(0, 256), (0.002, 16)])
async def test_long_runs_of_turns_that_never_wait_let_the_loop_breathe(clock, store, kind, seconds, at_most):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        ran = 0

        async def never_waits(actor):
            nonlocal ran
            ran += 1
            time.sleep(seconds)  # noqa: ASYNC251 - that it blocks is the point

        for _ in range(300):
            registry.tell(address, never_waits)
        longest = 0
        while ran < 300:
            before = ran
            await asyncio.sleep(0)
            longest = max(longest, ran - before)
        assert longest <= at_most + 1


async def test_a_cancellation_between_two_turns_hits_neither(clock, store, kind):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry)
        ran = 0

        async def quick(actor):
            nonlocal ran
            ran += 1
            assert asyncio.current_task().cancelling() == 0

        outcomes = []
        for _ in range(300):
            message, outcome = envelope(quick)
            registry.deliver(address, message)
            outcomes.append(outcome)
        await asyncio.sleep(0)
        assert 0 < ran < 300
        registry._cells[address].task.cancel()
        await asyncio.gather(*outcomes)
        assert ran == 300


async def test_an_actor_of_a_kind_that_is_not_durable_is_never_stored(clock, store):
    kind = CounterKind("scratch", durable=False)
    async with a_registry(clock, store, kind) as registry:
        address = Address.new("scratch")
        assert await registry.ask(address, increment) == 1
        assert await registry.ask(address, increment) == 2
        assert await store.load(address) is None
        with pytest.raises(ValueError, match="spoilt"):
            await registry.ask(address, spoil)
        assert len(kind.created) == 1
        await registry.passivate(address)
        assert await registry.ask(address, increment) == 1


async def test_what_ends_the_process_is_not_swallowed(clock, store, kind):
    async def main() -> None:
        async with a_registry(clock, store, kind) as registry:
            address = await opened(registry)

            async def interrupt(actor):
                raise KeyboardInterrupt

            message, outcome = envelope(interrupt)
            registry.deliver(address, message)
            outcomes.append(outcome)
            await settle()

    outcomes: list[asyncio.Future[object]] = []

    def run() -> None:
        with asyncio.Runner() as runner:
            runner.run(main())

    with pytest.raises(KeyboardInterrupt):
        await asyncio.to_thread(run)
    assert outcomes[0].cancelled()


async def test_a_fault_of_the_actor_drops_it_and_the_next_use_rehydrates(clock, store, kind, caplog):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)

        def broken():
            raise RuntimeError("cannot roll back")

        kind.created[0].on_rollback = broken
        waiting, done = envelope(increment)
        message, outcome = envelope(spoil)
        registry.deliver(address, message)
        registry.deliver(address, waiting)
        with pytest.raises(ValueError, match="spoilt"):
            await outcome
        assert await done == 6
        assert len(kind.rehydrated) == 1
        assert kind.closed == [address]
        assert registry.stats()["faults"] == 1


async def test_saved_that_raises_drops_the_actor_but_the_result_stands(clock, store, kind, caplog):
    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)

        def broken():
            raise RuntimeError("cannot note")

        kind.created[0].on_saved = broken
        assert await registry.ask(address, increment) == 6
        assert await registry.ask(address, increment) == 7
        assert len(kind.rehydrated) == 1


async def test_an_error_of_the_runtime_itself_costs_one_actor_not_the_node(clock, store, kind, caplog, monkeypatch):
    async def broken(*_):
        raise AssertionError("a bug")

    async with a_registry(clock, store, kind) as registry:
        address = await opened(registry, 5)
        with monkeypatch.context() as patch:
            patch.setattr(cell_module, "exclusive_turn", broken)
            with pytest.raises(ActorUnavailable) as failure:
                await registry.ask(address, increment)
            assert failure.value.outcome_unknown
        assert await registry.ask(address, increment) == 6
        assert "a bug" in caplog.text


async def test_too_many_faults_refuse_the_address_until_the_window_has_passed(clock, store, kind, caplog):
    def broken():
        raise RuntimeError("cannot roll back")

    policy = RestartPolicy(max_restarts=2, window=60)
    async with a_registry(clock, store, kind, restarts=policy) as registry:
        address = await opened(registry, 5)
        kind.created[0].on_rollback = broken
        for _ in range(3):
            with pytest.raises(ValueError, match="spoilt"):
                await registry.ask(address, spoil)
            await settle()
            if registry.stats()["faults"] < 3:
                await registry.ask(address, count)
                kind.rehydrated[-1].on_rollback = broken
        with pytest.raises(ActorUnavailable, match="failed 3 times within 60 s") as refusal:
            await registry.ask(address, count)
        assert refusal.value.retry_after == pytest.approx(60)
        await clock.advance(60.5)
        assert await registry.ask(address, count) == 5
