"""Clocks, and awaits that may not hang."""

import asyncio
import time

import pytest
from support.patience import PATIENCE
from understudy.actors import SystemClock
from understudy.actors.clock import within
from understudy.actors.testing import settle


async def test_the_system_clock_is_the_machines(clock):
    system = SystemClock()
    assert abs(system.monotonic() - time.monotonic()) < 0.1
    called = asyncio.Event()
    system.call_at(system.monotonic() + 0.01, called.set)
    await system.sleep(0)
    assert not called.is_set()
    async with asyncio.timeout(PATIENCE):
        await called.wait()
    cancelled = system.call_at(system.monotonic(), lambda: pytest.fail("was cancelled"))
    cancelled.cancel()
    await system.sleep(0.01)


async def test_a_manual_clock_fires_in_order_and_each_at_its_moment(clock):
    fired = []
    start = clock.monotonic()
    for delay in (3, 1, 2):
        clock.call_at(start + delay, lambda: fired.append(clock.monotonic() - start))
    clock.call_at(start + 2.5, lambda: clock.call_at(start + 2.75, lambda: fired.append(2.75)))
    clock.call_at(start + 1.5, lambda: pytest.fail("was cancelled")).cancel()
    await clock.advance(2.9)
    assert fired == [1, 2, 2.75]
    assert clock.timers == 1
    await clock.advance(0.1)
    assert fired == [1, 2, 2.75, 3]


async def test_a_cancelled_sleep_leaves_no_timer(clock):
    async with asyncio.TaskGroup() as tasks:
        sleeping = tasks.create_task(clock.sleep(10))
        await settle()
        assert clock.timers == 1
        sleeping.cancel()
    assert clock.timers == 0


async def test_within_returns_what_is_done_in_time_and_leaves_no_timer(clock):
    async def work():
        await clock.sleep(1)
        return "done"

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(within(clock, 2, work()))
        await clock.advance(1)
    assert working.result() == "done"
    assert clock.timers == 0


async def test_within_cancels_what_takes_too_long(clock):
    cancelled = False

    async def work():
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        finally:
            cancelled = True

    async def run():
        with pytest.raises(TimeoutError, match="not done within 2 s"):
            await within(clock, 2, work())
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)
        return "went on"

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run())
        await clock.advance(2)
    assert running.result() == "went on"
    assert cancelled


async def test_a_cancellation_from_outside_is_not_a_timeout(clock):
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(within(clock, 2, asyncio.Event().wait()))
        await settle()
        working.cancel()
    assert working.cancelled()
    assert clock.timers == 0


async def test_a_cancellation_at_the_same_moment_wins_over_the_timeout(clock):
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(within(clock, 2, asyncio.Event().wait()))
        await settle()
        clock.call_at(clock.monotonic() + 2, working.cancel)
        await clock.advance(2)
    assert working.cancelled()


async def test_a_timeout_inside_a_timeout_is_told_apart(clock):
    async def inner():
        try:
            await within(clock, 1, asyncio.Event().wait())
        except TimeoutError:
            await clock.sleep(5)

    async def outer():
        with pytest.raises(TimeoutError, match="within 3 s"):
            await within(clock, 3, inner())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(outer())
        await clock.advance(3)
