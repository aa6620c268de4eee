"""What limits may cost: changes of the counters, and tables of what sessions use."""

from __future__ import annotations

import asyncio

import pytest
from limits.nodes import ACME, Shared, node, request
from understudy.actors.session import TenantContext
from understudy.actors.session.messages import Call
from understudy.actors.testing import ManualClock
from understudy.runtime.limits import Limits, MemoryCounters, SessionLimits
from understudy.runtime.limits.ledger import TICK, WINDOW
from understudy.runtime.limits.session_use import SessionUses
from understudy.stores import Address


@pytest.mark.parametrize("shared", [True, False])
async def test_a_tenant_near_its_limit_changes_the_counters_no_more_often_than_one_far_from_it(shared: bool) -> None:
    clock, counters = ManualClock(), Shared(MemoryCounters())
    counters.shared = shared
    async with node("a.1", Limits(calls_per_minute=2000), counters, clock) as it:
        changes: list[int] = []
        for _ in range(4):
            before = counters.changes
            for number in range(500):
                assert await it.call() is None
                await asyncio.sleep(0)
                if number % 50 == 0:
                    await clock.advance(0.05)
            changes.append(counters.changes - before)
        assert await it.call() is not None
        assert max(changes) <= changes[0] + 10


async def test_permits_that_went_back_while_one_was_in_use_are_drawn_once_and_kept() -> None:
    clock, counters = ManualClock(), Shared(MemoryCounters())
    counters.shared = False
    async with node("a.1", Limits(calls_in_flight=10), counters, clock) as it:
        long = await it.enter()
        assert isinstance(long, Call)
        await clock.advance(5.0)
        before = counters.changes
        for _ in range(100):
            assert await it.call() is None
        long.let_go()
        assert [type(await it.enter()) is Call for _ in range(11)] == [True] * 10 + [False]
        assert counters.changes - before <= 5


async def test_what_was_spent_in_different_ticks_comes_back_in_that_order() -> None:
    clock = ManualClock()
    async with node("a.1", Limits(calls_per_minute=4), MemoryCounters(), clock) as it:
        for _ in range(4):
            assert await it.call() is None
            await clock.advance(10.0)
        for _ in range(4):
            assert await it.call() is not None
            await clock.advance(WINDOW - 40.0 + 2 * TICK if it.refused == 1 else 10.0)
            assert await it.call() is None
            assert await it.call() is not None


def addresses(count: int) -> list[Address]:
    return [Address.new("session") for _ in range(count)]


def test_of_sessions_that_are_used_again_nothing_is_forgotten_for_those_that_come_once() -> None:
    uses = SessionUses(most=100)
    kept = addresses(20)
    for address in kept:
        uses.of(address, ACME).calls.take(10, 0.0)
    for number, address in enumerate(addresses(1000)):
        uses.of(address, ACME)
        uses.of(kept[number % 20], ACME)
        assert len(uses) <= 100
    assert [uses.of(address, ACME).calls.total for address in kept] == [1] * 20


def test_a_full_table_of_sessions_that_are_all_used_again_stays_within_its_bound() -> None:
    uses = SessionUses(most=50)
    for address in addresses(500):
        uses.of(address, ACME)
        uses.of(address, ACME)
        assert len(uses) <= 50


async def test_a_session_that_is_at_work_does_not_keep_those_behind_it_from_being_forgotten() -> None:
    clock = ManualClock()
    limits = Limits(per_session=SessionLimits(calls_in_flight=5, calls_per_minute=5))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        long = request()
        assert it.limiter.permits.enter(long, Address.new("session")) is None
        for address in addresses(200):
            call = request()
            assert it.limiter.permits.enter(call, address) is None
            call.let_go()
        assert it.limiter.stats()["limits_sessions"] == 201
        await clock.advance(10.0)
        assert it.limiter.stats()["limits_sessions"] == 1
        long.let_go()


async def test_what_a_principal_does_at_anothers_session_counts_for_him_alone() -> None:
    """no-wrong-tenant."""
    clock = ManualClock()
    limits = Limits(per_session=SessionLimits(calls_in_flight=1))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        session = Address.new("session")
        for tenant in (ACME, TenantContext("acme", "bob"), TenantContext("other", "ada")):
            assert it.limiter.permits.enter(request(tenant), session) is None
