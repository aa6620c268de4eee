"""One task that waits until it is woken: with the next turn of the event loop, or there and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar

import pytest
from understudy.actors.at_once import begin_at_once
from understudy.runtime.link.wakeup import Wakeup

WORD: ContextVar[str] = ContextVar("WORD", default="unset")


class Sleeper:
    """A task that waits again and again, and what it noted each time it went on."""

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self.woken: list[asyncio.Task[None] | None] = []
        self.words: list[str] = []
        self.task = begin_at_once(self._sleep())

    async def _sleep(self) -> None:
        WORD.set("the sleeper's")
        while True:
            await self.wakeup
            self.woken.append(asyncio.current_task())
            self.words.append(WORD.get())


@pytest.fixture
async def sleeper() -> AsyncIterator[Sleeper]:
    sleeper = Sleeper()
    await asyncio.sleep(0)
    yield sleeper
    sleeper.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper.task


async def test_it_goes_on_with_the_next_turn(sleeper: Sleeper) -> None:
    for number in range(3):
        sleeper.wakeup.wake()
        assert len(sleeper.woken) == number
        await asyncio.sleep(0)
        assert len(sleeper.woken) == number + 1


async def test_it_goes_on_there_and_then_as_the_task_that_it_is(sleeper: Sleeper) -> None:
    mine = asyncio.current_task()
    for number in range(3):
        sleeper.wakeup.wake_at_once()
        assert sleeper.woken == [sleeper.task] * (number + 1)
        assert sleeper.words == ["the sleeper's"] * (number + 1)
        assert asyncio.current_task() is mine
        assert WORD.get() == "unset"


async def test_it_goes_on_there_and_then_from_a_callback_too(sleeper: Sleeper) -> None:
    asyncio.get_running_loop().call_soon(sleeper.wakeup.wake_at_once)
    await asyncio.sleep(0)
    assert sleeper.woken == [sleeper.task]


@pytest.mark.parametrize("wake", [Wakeup.wake, Wakeup.wake_at_once])
async def test_who_was_woken_before_does_not_wait(wake: object) -> None:
    wakeup = Wakeup()
    assert callable(wake)
    wake(wakeup)
    async with asyncio.timeout(1):
        await wakeup
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wakeup


async def test_to_be_woken_twice_before_it_goes_on_loses_nothing(sleeper: Sleeper) -> None:
    sleeper.wakeup.wake()
    sleeper.wakeup.wake()
    sleeper.wakeup.wake_at_once()
    assert not sleeper.woken
    await asyncio.sleep(0)
    assert sleeper.woken
    before = len(sleeper.woken)
    sleeper.wakeup.wake_at_once()
    assert len(sleeper.woken) == before + 1


async def test_cancelled_it_leaves_nothing_behind() -> None:
    wakeup = Wakeup()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wakeup
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wakeup
    wakeup.wake()
    async with asyncio.timeout(1):
        await wakeup


@pytest.mark.parametrize("woken_first", [True, False])
async def test_woken_and_cancelled_in_one_turn_it_is_cancelled_once(woken_first: bool) -> None:
    wakeup, cancelled = Wakeup(), 0

    async def wait() -> None:
        nonlocal cancelled
        try:
            await wakeup
        except asyncio.CancelledError:
            cancelled += 1
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        wakeup.wake()
        await wakeup

    task = begin_at_once(wait())
    if woken_first:
        wakeup.wake()
        task.cancel()
    else:
        task.cancel()
        wakeup.wake_at_once()
    async with asyncio.timeout(1):
        await task
    assert cancelled == 1


async def test_a_debugging_loop_takes_it_for_a_future() -> None:
    asyncio.get_running_loop().set_debug(True)
    wakeup = Wakeup()
    assert asyncio.isfuture(wakeup)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_wait_for(wakeup))
        await asyncio.sleep(0)
        assert not task.done()
        wakeup.wake()


async def _wait_for(wakeup: Wakeup) -> None:
    await wakeup
