"""`Allowance`: limits that change, calls under way, and what is kept of those who come and go."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from limits.nodes import ACME, Node, node, request
from understudy.actors.session import TenantContext
from understudy.actors.session.errors import LimitExceeded
from understudy.actors.session.messages import Call
from understudy.actors.session.wire import encode, result_message
from understudy.actors.testing import ManualClock
from understudy.runtime.limits import Limits, MemoryCounters, SessionLimits, usage
from understudy.runtime.limits.allowance import Allowance
from understudy.runtime.limits.ledger import WINDOW
from understudy.runtime.limits.reports import MOST_TICKS, Reports
from understudy.runtime.limits.tenant_use import KEPT, TenantUse
from understudy.stores import Address


class Changing:
    """Limits that an operator changes."""

    def __init__(self, limits: Any) -> None:
        self.limits = limits

    def __call__(self, tenant: TenantContext) -> Any:
        return self.limits


async def allowed(it: Node, tries: int) -> int:
    return [await it.call() for _ in range(tries)].count(None)


async def test_a_limit_that_was_lowered_holds_for_what_is_in_hand_already() -> None:
    clock = ManualClock()
    limits = Changing(Limits(calls_per_minute=1000))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        assert await allowed(it, 3) == 3
        limits.limits = Limits(calls_per_minute=10)
        await clock.advance(2.0)
        assert await allowed(it, 50) == 7
        await clock.advance(WINDOW + 2.0)
        assert await allowed(it, 50) == 10


async def test_a_limit_that_was_raised_holds_at_once() -> None:
    clock = ManualClock()
    limits = Changing(Limits(calls_per_minute=5, calls_in_flight=1))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        assert await allowed(it, 9) == 5
        limits.limits = Limits(calls_per_minute=20, calls_in_flight=1)
        assert await allowed(it, 30) == 15


async def test_fewer_calls_in_flight_hold_while_more_are_under_way_and_all_come_back() -> None:
    clock = ManualClock()
    limits = Changing(Limits(calls_in_flight=8))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        calls = [await it.enter() for _ in range(6)]
        assert all(isinstance(call, Call) for call in calls)
        limits.limits = Limits(calls_in_flight=3)
        await clock.advance(2.0)
        assert isinstance(await it.enter(), LimitExceeded)
        for call in calls[:4]:
            assert isinstance(call, Call)
            call.let_go()
        assert isinstance(await it.enter(), Call)
        assert isinstance(await it.enter(), LimitExceeded)


async def test_a_limit_that_came_while_a_call_ran_takes_nothing_back_that_it_never_gave() -> None:
    clock = ManualClock()
    limits = Changing(Limits(calls_per_minute=5))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        call = await it.enter()
        assert isinstance(call, Call)
        limits.limits = Limits(calls_in_flight=1)
        other = await it.enter()
        assert isinstance(other, Call)
        call.let_go()
        assert it.limiter.usage.of("acme").in_flight.in_use == 1
        other.let_go()
        assert it.limiter.usage.of("acme").in_flight.in_use == 0


async def test_principals_of_one_tenant_with_two_plans_do_not_draw_anew_with_each_call() -> None:
    clock = ManualClock()
    plans = {"pro": Limits(calls_per_minute=1000), None: Limits(calls_per_minute=500)}
    counters = MemoryCounters()
    async with node("a.1", plans, counters, clock) as it:
        for _ in range(40):
            assert await it.call(TenantContext("acme", "ada", plan="pro")) is None
            assert await it.call(TenantContext("acme", "bob")) is None
        assert it.limiter.stats()["limits_shares_drawn_total"] <= 3


async def test_a_tenant_with_a_call_under_way_is_not_forgotten_and_one_without_leaves_nothing() -> None:
    clock = ManualClock()
    limits = Limits(calls_per_minute=100, per_session=SessionLimits(calls_per_minute=10))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        session = Address.new("session")
        call = request()
        assert it.limiter.permits.enter(call, session) is None
        await clock.advance(200.0)
        assert it.limiter.stats()["limits_tenants"] == it.limiter.stats()["limits_sessions"] == 1
        assert call.allowance is not None
        beginning = call.allowance.begin(call, stateful=True, read_only=False)
        if beginning is not None:
            await beginning
        call.let_go()
        await clock.advance(200.0)
        assert it.limiter.stats()["limits_tenants"] == it.limiter.stats()["limits_sessions"] == 0
        call.allowance = None
        gc.collect()
        gc.disable()
        try:
            again = request()
            assert it.limiter.permits.enter(again, session) is None
            again.let_go()
            del again
            await clock.advance(200.0)
            assert it.limiter.stats()["limits_tenants"] == 0
            assert not [each for each in gc.get_objects() if isinstance(each, Allowance)]
        finally:
            gc.enable()


async def test_a_call_that_is_cancelled_while_a_permit_is_drawn_for_it_holds_none() -> None:
    clock = ManualClock()
    async with node("a.1", Limits(calls_in_flight=2), MemoryCounters(), clock) as it:
        for after in range(6):
            waiting = asyncio.get_running_loop().create_task(it.enter())
            for _ in range(after):
                await asyncio.sleep(0)
            waiting.cancel()
            entered = (await asyncio.gather(waiting, return_exceptions=True))[0]
            if isinstance(entered, Call):
                entered.let_go()
            assert it.limiter.usage.of("acme").in_flight.in_use == 0
            assert it.limiter.usage.of("acme").under_way == 0
        assert [type(await it.enter()) for _ in range(3)] == [Call, Call, LimitExceeded]


@pytest.mark.parametrize("said", [5, "none", Limits])
async def test_what_is_no_limit_lets_nothing_through_also_where_the_tenant_is_known(said: object) -> None:
    clock = ManualClock()
    limits = Changing(Limits(calls_per_minute=5))
    async with node("a.1", limits, MemoryCounters(), clock) as it:
        assert await it.call() is None
        limits.limits = said
        refusal = await it.call()
        assert refusal is not None
        assert refusal.unchecked


async def test_tenants_that_come_and_go_leave_a_bounded_table_and_then_none() -> None:
    clock = ManualClock()
    async with node("a.1", Limits(calls_per_minute=100), MemoryCounters(), clock) as it:
        for number in range(300):
            assert await it.call(TenantContext(f"tenant-{number}", "p")) is None
        await clock.advance(5.0)
        assert await it.call(TenantContext("tenant-7", "p")) is None
        await clock.advance(KEPT + 1.0)
        assert it.limiter.stats()["limits_tenants"] == 1
        await clock.advance(10.0)
        assert it.limiter.stats()["limits_tenants"] == 0


async def test_a_full_table_makes_room_for_the_next_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_TENANTS", 50)
    clock = ManualClock()
    async with node("a.1", Limits(calls_per_minute=100), MemoryCounters(), clock) as it:
        for number in range(50):
            assert await it.call(TenantContext(f"tenant-{number}", "p")) is None
        refusal = await it.call(TenantContext("one too many", "p"))
        assert refusal is not None
        assert refusal.unchecked
        await clock.advance(3.0)
        for number in range(1000):
            if number % 40 == 0:
                await clock.advance(3.0)
            assert await it.call(TenantContext(f"new-{number}", "p")) is None
            assert it.limiter.stats()["limits_tenants"] <= 50


async def test_looking_after_many_tenants_never_holds_up_the_loop_for_all_of_them() -> None:
    clock = ManualClock()
    async with node("a.1", Limits(calls_per_minute=100), MemoryCounters(), clock) as it:
        looked = 0
        most = 0
        due = TenantUse.due

        def counted(use: TenantUse, now: float) -> Any:
            nonlocal looked, most
            looked += 1
            most = max(most, looked)
            return due(use, now)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(TenantUse, "due", counted)
            for number in range(500):
                await it.call(TenantContext(f"tenant-{number}", "p"))
            moving = asyncio.get_running_loop().create_task(clock.advance(3.0))
            while not moving.done():
                looked = 0
                await asyncio.sleep(0)
            await moving
            assert 0 < most <= 2 * usage.LOOK_AT
            # Those that rest are not looked at with each look.
            await clock.advance(3.0)
            looked = 0
            await clock.advance(10.0)
            assert looked == 0


def test_what_was_spent_and_never_told_is_kept_for_a_minute_and_no_longer() -> None:
    now = 1000.0
    reports = Reports(lambda: now, lambda: 1)
    for _ in range(10_000):
        reports.spend(1)
        now += 0.5
    told = reports.write()
    assert len(told[0].spent) == MOST_TICKS
    assert max(told[0].spent) == int((now - 0.5) / 0.5)


@pytest.mark.parametrize("id", [7, -3, 2**40, "seven", 'q"\\', "\ud800"])
def test_a_result_that_was_encoded_before_is_the_same_on_the_wire(id: Any) -> None:
    result = {"content": [{"type": "text", "text": "ä\n"}], "isError": False}
    assert result_message(id, result, encode(result)) == result_message(id, result)


async def test_what_a_call_was_allowed_is_of_its_own_tenant() -> None:
    """no-wrong-tenant."""
    clock = ManualClock()
    async with node("a.1", Limits(calls_in_flight=1), MemoryCounters(), clock) as it:
        ours, theirs = await it.enter(ACME), await it.enter(TenantContext("other", "ada"))
        assert isinstance(ours, Call)
        assert isinstance(theirs, Call)
        assert ours.allowance is not theirs.allowance
        assert isinstance(await it.enter(ACME), LimitExceeded)
