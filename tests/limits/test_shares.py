"""Nodes that count together: on counters in memory, and on a real nats-server; time is the test's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from limits.nodes import Node, Shared, node, nodes, request
from support.nats import fresh_name
from understudy.actors.session import TenantContext
from understudy.actors.session.errors import LimitExceeded
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.cluster.buckets import Buckets
from understudy.runtime.cluster.names import Names
from understudy.runtime.limits import Limits, MemoryCounters
from understudy.runtime.limits.ledger import TICK, WINDOW
from understudy.runtime.limits.nats_counters import NatsCounters
from understudy.runtime.limits.sharing import SHARE
from understudy.stores.nats.bucket import Bucket
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.settings import NatsSettings


class Cluster:
    """The counters of nodes in one cluster, each with a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.names = Names(fresh_name("limits"))
        self.clients: list[Any] = []

    async def counters(self) -> NatsCounters:
        client = await connect(NatsSettings.from_url(self.url), name="test")
        self.clients.append(client)
        buckets = Buckets(await jetstream(client), self.names, lease=3.0, ttl=3600.0, replicas=1)

        async def open_bucket() -> Bucket:
            await buckets.counters()
            return Bucket(client, self.names.counters_bucket, 5.0)

        return NatsCounters(open_bucket)

    async def close(self) -> None:
        for client in self.clients:
            await close(client)


@pytest.fixture
async def cluster(nats_url: str) -> AsyncIterator[Cluster]:
    made = Cluster(nats_url)
    yield made
    await made.close()


async def play(
    clock: ManualClock, members: list[Node], seconds: float, per_second: float, step: float = 0.25, **options: Any
) -> list[float]:
    """The moments at which calls were allowed, all of them asked for evenly, at one node after the other."""
    moments: list[float] = []
    began = clock.monotonic()
    asked = 0
    while (elapsed := clock.monotonic() - began) < seconds:
        while asked < elapsed * per_second:
            if await members[asked % len(members)].call(**options) is None:
                moments.append(clock.monotonic())
            asked += 1
        await clock.advance(step)
    return moments


def most_in_a_minute(moments: list[float]) -> int:
    window: deque[float] = deque()
    most = 0
    for moment in moments:
        window.append(moment)
        while window[0] <= moment - WINDOW:
            window.popleft()
        most = max(most, len(window))
    return most


async def test_three_nodes_hold_a_limit_within_five_percent_under_three_times_the_load(cluster: Cluster) -> None:
    """Done when, of the issue: 60 s, and then two minutes more, on a real nats-server."""
    limit = 600
    clock = ManualClock()
    made = [await cluster.counters() for _ in range(3)]
    async with nodes(3, Limits(calls_per_minute=limit), made.__getitem__, clock) as members:
        moments = await play(clock, members, 3 * WINDOW, 3 * limit / 60, step=0.2)
        began = 1000.0
        assert most_in_a_minute(moments) <= limit
        for minute in range(3):
            start = began + minute * WINDOW
            allowed = sum(start <= moment < start + WINDOW for moment in moments)
            assert 0.95 * limit <= allowed <= limit, minute
        assert all(member.allowed > limit / 2 for member in members)
        assert sum(member.refused for member in members) > limit


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("limit", [1, 7, 20, 100])
async def test_a_limit_of_any_size_is_reached_and_never_exceeded(count: int, limit: int) -> None:
    clock = ManualClock()
    counters = MemoryCounters() if count == 1 else Shared(MemoryCounters())
    async with nodes(count, Limits(calls_per_minute=limit), lambda number: counters, clock) as members:
        moments = await play(clock, members, 2 * WINDOW + 5, 10.0, read_only=False)
        assert most_in_a_minute(moments) == limit
        in_all = 2 * limit if count == 1 else 2 * limit - count * (limit // SHARE)
        assert len(moments) >= in_all
        # The other kind of tools has a limit of its own, and here none.
        assert await members[0].call(read_only=True) is None


async def test_a_call_costs_no_round_trip_while_there_is_some_in_hand() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    async with nodes(2, Limits(calls_per_minute=10_000), lambda number: counters, clock) as members:
        await play(clock, members, 2.0, 100.0)
        before = counters.changes
        await play(clock, members, 10.0, 100.0)
        assert counters.changes - before <= 2 * 10 * 4


async def test_what_a_node_does_not_use_goes_back_within_seconds() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    async with nodes(2, Limits(calls_per_minute=100), lambda number: counters, clock) as (one, other):
        for _ in range(30):
            assert await one.call() is None
        await settle()
        held = one.limiter.usage.of("acme").calls.tokens
        assert 0 < held <= 100 // SHARE
        await clock.advance(4.0)
        assert one.limiter.usage.of("acme").calls.tokens == 0
        allowed = 0
        while await other.call() is None:
            allowed += 1
        assert allowed == 70


async def test_under_a_limit_others_lack_no_more_than_the_shares_in_hand() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    async with nodes(4, Limits(calls_per_minute=200), lambda number: counters, clock) as members:
        for member in members[:3]:
            for _ in range(20):
                await member.call()
        await settle()
        allowed = 60
        while await members[3].call() is None:
            allowed += 1
        assert 200 - 3 * (200 // SHARE) <= allowed <= 200


async def test_the_refusal_says_when_the_next_token_comes_back() -> None:
    clock = ManualClock()
    async with node("node.1", Limits(calls_per_minute=3), MemoryCounters(), clock) as it:
        for _ in range(3):
            assert await it.call() is None
        await clock.advance(28.5)
        refusal = await it.call()
        assert refusal is not None
        assert str(refusal) == "Rate limit exceeded: 3 calls/minute. Retry after 32 seconds."
        assert refusal.retry_after == 32.0
        await clock.advance(31.9)
        again = await it.call()
        assert again is not None
        assert str(again).endswith("Retry after 1 second.")
        await clock.advance(0.2)
        assert await it.call() is None


async def test_a_refused_call_counts_for_nothing() -> None:
    clock = ManualClock()
    async with node("node.1", Limits(calls_per_minute=2), MemoryCounters(), clock) as it:
        for _ in range(2):
            assert await it.call() is None
        for _ in range(100):
            assert await it.call() is not None
            await clock.advance(0.5)
        await clock.advance(WINDOW + TICK - 50.0)
        assert await it.call() is None
        assert it.limiter.stats()["limits_refused_calls_per_minute_total"] == 100


async def test_tenants_do_not_share_and_plans_have_limits_of_their_own() -> None:
    clock = ManualClock()
    plans = {"pro": Limits(calls_per_minute=2), None: Limits(calls_per_minute=1), "free": None}
    async with node("node.1", plans, MemoryCounters(), clock) as it:
        for tenant, most in (("a", 2), ("b", 2)):
            context = TenantContext(tenant, "ada", plan="pro")
            assert [await it.call(context) is None for _ in range(3)] == [True] * most + [False]
        assert [await it.call(TenantContext("c", "ada", plan="odd")) is None for _ in range(2)] == [True, False]
        assert [await it.call(TenantContext("d", "ada", plan="free")) is None for _ in range(9)] == [True] * 9


async def test_clocks_that_differ_shorten_the_minute_by_no_more_than_they_differ() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    limits = Limits(calls_per_minute=100)
    async with node("a.1", limits, counters, clock) as right, node("b.1", limits, counters, clock, drift=5.0) as fast:
        moments = await play(clock, [right, fast], 2 * WINDOW, 10.0)
        shorter = WINDOW - 5.0
        for moment in moments:
            assert sum(moment - shorter < other <= moment for other in moments) <= 100


# Permits


async def test_permits_are_never_more_than_the_limit_and_come_back() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    async with nodes(3, Limits(calls_in_flight=10), lambda number: counters, clock) as members:
        running: list[Any] = []
        for turn in range(30):
            got = await members[turn % 3].enter()
            if not isinstance(got, LimitExceeded):
                running.append(got)
        assert len(running) == 10
        refusal = await members[0].enter()
        assert isinstance(refusal, LimitExceeded)
        assert str(refusal) == "Limit reached: 10 calls in flight. Retry after 1 second."
        for call in running[:4]:
            call.let_go()
            call.let_go()
        await clock.advance(2.0)
        back = [await members[turn % 3].enter() for turn in range(5)]
        assert sum(not isinstance(got, LimitExceeded) for got in back) == 4


async def test_a_dead_nodes_permits_are_released_when_somebody_needs_one() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    dead: set[str] = set()
    limits = Limits(calls_in_flight=2)
    options: Any = {"alive": lambda holder: holder not in dead}
    living, dying = (node(name, limits, counters, clock, **options) for name in ("b.1", "a.1"))
    async with living as one, dying as other:
        assert not isinstance(await other.enter(), LimitExceeded)
        assert not isinstance(await other.enter(), LimitExceeded)
        assert isinstance(await one.enter(), LimitExceeded)
        dead.add("a.1")
        await clock.advance(2.0)
        assert not isinstance(await one.enter(), LimitExceeded)


async def test_a_node_that_was_taken_for_dead_enters_what_it_has_again_under_its_new_name() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    names = {"a": "a.1"}
    limits = Limits(calls_in_flight=3)
    one = node("b.1", limits, counters, clock, alive=lambda holder: holder in names.values())
    async with one as other, node("a.1", limits, counters, clock, me=lambda: names["a"]) as renamed:
        held = [await renamed.enter() for _ in range(2)]
        names["a"] = "a.2"
        more = await renamed.enter()
        assert not isinstance(more, LimitExceeded)
        await settle()
        assert isinstance(await other.enter(), LimitExceeded)
        for call in (*held, more):
            call.let_go()
        await clock.advance(4.0)
        assert not isinstance(await other.enter(), LimitExceeded)


async def test_a_waiting_call_that_is_cancelled_takes_nothing() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    gate = asyncio.Event()
    counters.broken = gate.wait
    async with node("a.1", Limits(calls_in_flight=1), counters, clock) as it:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(it.enter())
            await settle()
            waiting.cancel()
            await settle()
            gate.set()
            await settle()
        assert it.limiter.usage.of("acme").in_flight.in_use == 0
        assert not isinstance(await it.enter(), LimitExceeded)


# Bytes


async def test_bytes_of_results_are_paid_for_afterwards() -> None:
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    async with nodes(2, Limits(result_bytes_per_minute=1000), lambda number: counters, clock) as (one, other):
        assert await one.call() is None
        one.allowance().check_result(request(), {"text": "x" * 900}, stateful=False)
        assert await one.call() is None
        one.allowance().check_result(request(), {"text": "x" * 5000}, stateful=False)
        refusal = await one.call()
        assert refusal is not None
        assert str(refusal) == "Rate limit exceeded: 1000 result bytes/minute. Retry after 61 seconds."
        await settle()
        elsewhere = await other.call()
        assert elsewhere is not None
        assert elsewhere.limit == "result_bytes_per_minute"
        await clock.advance(WINDOW + 2 * TICK)
        assert await other.call() is None
        assert await one.call() is None


async def test_what_nobody_uses_is_forgotten_and_the_task_rests() -> None:
    """idle-is-free, quiet-cluster: after a minute there is nothing in memory, and nothing is asked of the counters."""
    clock = ManualClock()
    counters = Shared(MemoryCounters())
    limits = Limits(calls_per_minute=100, calls_in_flight=100, result_bytes_per_minute=1000)
    async with node("a.1", limits, counters, clock) as it:
        await it.call()
        entered = await it.enter()
        assert not isinstance(entered, LimitExceeded)
        entered.let_go()
        await clock.advance(70.0)
        assert it.limiter.stats()["limits_tenants"] == 0
        changes = counters.changes
        timers = clock.timers
        await clock.advance(600.0)
        assert counters.changes == changes
        assert clock.timers == timers == 0
