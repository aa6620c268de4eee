"""Counters that fail, hang, or are restarted: the operator's choice, said once, and no call waits twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from limits.nodes import Shared, node, nodes
from limits.test_shares import Cluster, play
from support.patience import PATIENCE
from understudy.actors.clock import SystemClock
from understudy.actors.session.errors import LimitExceeded
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.commands.nats_server import NatsServer
from understudy.runtime.limits import Counters, CountersUnavailable, Limits, MemoryCounters
from understudy.runtime.limits.awake import within_awake
from understudy.runtime.limits.guarded_counters import DEADLINE, FIRST_LOOK
from understudy.runtime.limits.ledger import WINDOW
from understudy.runtime.limits.sharing import SHARE


async def fail() -> None:
    raise CountersUnavailable("they are away")


async def hang() -> None:
    await asyncio.Event().wait()


async def ask(clock: ManualClock, it: Any, **options: Any) -> Any:
    """A call's verdict, however long it takes by the clock, and how long it took."""
    began = clock.monotonic()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(it.call(**options))
        await settle()
        while not call.done():
            await clock.advance(0.05)
    return call.result(), clock.monotonic() - began


@pytest.mark.parametrize("broken", [fail, hang])
@pytest.mark.parametrize("when_failing", ["open", "closed"])
async def test_the_operators_choice_is_followed_and_said_once(
    broken: Callable[[], Any], when_failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    options: Any = {"when_failing": when_failing, "deadline": DEADLINE}
    async with node("a.1", Limits(calls_per_minute=5), counters, clock, **options) as it:
        for _ in range(2):
            assert await it.call() is None
        counters.broken = broken
        with caplog.at_level(logging.INFO, "understudy.limits"):
            first, took = await ask(clock, it)
            assert took <= (DEADLINE + 0.05 if broken is hang else 0.0)
            verdicts = [first]
            for _ in range(9):
                verdict, took = await ask(clock, it)
                assert took == 0.0
                verdicts.append(verdict)
            stats = it.limiter.stats()
            assert stats["limits_counters_away"] == 1
            assert stats["limits_counter_outages_total"] == 1
            if when_failing == "open":
                assert [verdict is None for verdict in verdicts] == [True] * 3 + [False] * 7
                assert str(verdicts[-1]).startswith("Rate limit exceeded: 5 calls/minute.")
                assert stats["limits_counting_alone"] == 1
            else:
                assert all(
                    str(verdict) == "Limits cannot be checked now. Retry after 1 second." for verdict in verdicts
                )
                assert all(verdict.unchecked for verdict in verdicts)
                assert stats["limits_counting_alone"] == 0
                assert stats["limits_refused_unchecked_total"] == 10
            await clock.advance(30.0)
            assert [record.levelno for record in caplog.records] == [logging.WARNING]
            counters.broken = None
            await clock.advance(6.0)
            assert it.limiter.stats()["limits_counters_away"] == 0
            assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
        # What was spent meanwhile is told, and counts.
        left = 0 if when_failing == "open" else 3
        for _ in range(left):
            assert await it.call() is None
        assert await it.call() is not None


async def test_what_is_in_hand_may_be_used_though_nobody_can_be_asked() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    async with node("a.1", Limits(calls_per_minute=1000), counters, clock, when_failing="closed") as it:
        for _ in range(100):
            await it.call()
        await settle()
        in_hand = it.limiter.usage.of("acme").calls.tokens
        assert in_hand
        counters.broken = fail
        assert [await it.call() is None for _ in range(in_hand + 1)] == [True] * in_hand + [False]


async def test_alone_each_node_applies_the_limit_by_itself() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    limit = 100
    async with nodes(3, Limits(calls_per_minute=limit), lambda number: counters, clock) as members:
        counters.broken = fail
        for member in members:
            moments = await play(clock, [member], 10.0, 50.0)
            assert len(moments) == limit
        counters.broken = None
        await clock.advance(10.0)
        # All that was spent is told by and by; until a minute has passed nobody has any.
        assert [await member.call() is None for member in members] == [False] * 3
        await clock.advance(WINDOW + 10.0)
        moments = await play(clock, members, 5.0, 50.0)
        assert limit - 3 * (limit // SHARE) <= len(moments) <= limit


async def test_a_record_that_cannot_be_read_is_begun_anew() -> None:
    clock = ManualClock()
    inner = MemoryCounters()
    async with node("a.1", Limits(calls_per_minute=2), Shared(inner), clock) as it:
        inner.put(it.limiter.usage.of("acme").calls.key, b"\xc1 garbage")
        assert [await it.call() is None for _ in range(3)] == [True, True, False]


async def test_a_change_that_landed_though_its_answer_was_lost_is_entered_once() -> None:
    clock = ManualClock()
    inner = MemoryCounters()

    class Lossy:
        shared = True
        losing = False

        async def change(self, key: str, step: Any, lasting: float | None = None) -> Any:
            outcome = await inner.change(key, step, lasting)
            if self.losing:
                raise CountersUnavailable("the answer is lost")
            return outcome

    counters: Counters = Lossy()  # type: ignore[assignment]
    async with node("a.1", Limits(calls_per_minute=10), counters, clock, when_failing="closed") as it:
        for _ in range(4):
            assert await it.call() is None
        Lossy.losing = True
        assert await it.call() is not None
        Lossy.losing = False
        await clock.advance(FIRST_LOOK * 2)
        assert [await it.call() is None for _ in range(7)] == [True] * 6 + [False]


async def test_permits_in_use_are_entered_again_when_the_counters_have_lost_them() -> None:
    clock = ManualClock()

    class Forgetful(Shared):
        generation = 0

        def forget(self) -> None:
            self.inner = MemoryCounters()
            self.generation += 1

    counters = Forgetful(MemoryCounters())
    async with nodes(2, Limits(calls_in_flight=4), lambda number: counters, clock) as (one, other):
        held = [await one.enter() for _ in range(4)]
        assert isinstance(await other.enter(), LimitExceeded)
        for busy in (False, True):
            counters.forget()
            if busy:
                # Taken and put back all the while, from what is in hand: nothing has it write.
                held[0].let_go()  # type: ignore[union-attr]
                held[0] = await one.enter()
            await clock.advance(2.0)
            assert isinstance(await other.enter(), LimitExceeded), busy
        changes = counters.changes
        await clock.advance(20.0)
        assert counters.changes == changes
        for call in held:
            call.let_go()  # type: ignore[union-attr]


async def test_permits_in_use_count_again_after_an_outage() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    async with nodes(2, Limits(calls_in_flight=4), lambda number: counters, clock) as (one, other):
        counters.broken = fail
        held = [await one.enter() for _ in range(4)]
        assert not any(isinstance(call, LimitExceeded) for call in held)
        counters.broken = None
        await clock.advance(8.0)
        assert isinstance(await other.enter(), LimitExceeded)
        for call in held:
            call.let_go()  # type: ignore[union-attr]


async def test_a_restart_of_nats_costs_no_more_than_an_outage(nats_servers: Callable[..., NatsServer]) -> None:
    """What is counted is in NATS' memory: the bucket is gone then, and made anew."""
    async with nats_servers() as server:
        cluster = Cluster(server.url)
        one, other = await cluster.counters(), await cluster.counters()
        try:
            assert (await one.change("a.b", lambda record: (b"1", record)))[1] is None
            assert (await other.change("a.b", lambda record: (b"2", record)))[1] == b"1"
            await server.stop()
            with pytest.raises(CountersUnavailable):
                await one.change("a.b", lambda record: (b"3", record))
            await server.start()
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        seen = (await one.change("a.b", lambda record: (b"4", record)))[1]
                        break
                    except CountersUnavailable:
                        await asyncio.sleep(0.05)
            assert seen is None
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        assert (await other.change("a.b", lambda record: (b"5", record)))[1] == b"4"
                        break
                    except CountersUnavailable:
                        await asyncio.sleep(0.05)
            await one.change("a.b", lambda record: (None, None))
            assert (await other.change("a.b", lambda record: (record, record)))[1] is None
        finally:
            await cluster.close()


async def test_changes_of_one_record_by_many_nodes_are_all_made(nats_url: str) -> None:
    cluster = Cluster(nats_url)
    try:
        made = [await cluster.counters() for _ in range(4)]

        def one_more(record: bytes | None) -> tuple[bytes, None]:
            return b"%d" % (int(record or b"0") + 1), None

        async def many(counters: Any) -> None:
            for _ in range(25):
                while True:
                    try:
                        await counters.change("sum.x", one_more)
                        break
                    except CountersUnavailable:
                        await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            for counters in made:
                group.create_task(many(counters))
        assert (await made[0].change("sum.x", lambda record: (record, record)))[1] == b"100"
        assert sum(counters.conflicts for counters in made) > 0
    finally:
        await cluster.close()


def test_memory_counters_forget_what_was_changed_least_recently() -> None:
    counters = MemoryCounters(max_records=2)
    for key in ("a", "b", "c"):
        counters.change_now(key, lambda record: (b"x", None))
    assert [counters.change_now(key, lambda record: (record, record))[1] for key in "abc"] == [None, b"x", b"x"]


async def test_an_answer_that_lies_unread_while_the_loop_is_held_up_is_no_outage() -> None:
    """Real time: a call that computes for longer than the deadline, while the counters' answer is there."""
    loop = asyncio.get_running_loop()

    async def answer_soon(seconds: float) -> str:
        answered: asyncio.Future[str] = loop.create_future()
        loop.call_later(seconds, answered.set_result, "answer")
        for _ in range(3):
            # As many turns of the loop as a client library takes to hand an answer over.
            await asyncio.sleep(0)
        return await answered

    loop.call_later(0.001, time.sleep, 0.06)
    assert await within_awake(SystemClock(), 0.05, answer_soon(0.03)) == "answer"
    with pytest.raises(TimeoutError):
        await within_awake(SystemClock(), 0.05, answer_soon(10.0))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(within_awake(SystemClock(), 60.0, answer_soon(10.0)))
        await asyncio.sleep(0.01)
        waiting.cancel()
    assert waiting.cancelled()
