"""Tasks that begin in the turn of the event loop in which they are made: all else is as with any task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
import uvloop
from understudy.actors.at_once import begin_at_once, step_at_once

Test = Callable[[], Coroutine[Any, Any, None]]
WORD: ContextVar[str] = ContextVar("WORD", default="unset")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    """Runs a coroutine function on an event loop of its own."""

    def run(test: Test) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(test())

    return run


def test_what_need_not_wait_is_done_at_once(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        done: list[str] = []

        async def work() -> None:
            done.append("all of it")

        assert begin_at_once(work()).done()
        assert done == ["all of it"]

    run(test)


def test_it_is_a_task_of_its_own_before_its_first_wait_and_after(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        seen: list[asyncio.Task[Any] | None] = []
        go = asyncio.Event()

        async def work() -> None:
            seen.append(asyncio.current_task())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(60)
            await go.wait()
            seen.append(asyncio.current_task())

        beginner = asyncio.current_task()
        task = begin_at_once(work())
        assert seen == [task]
        assert asyncio.current_task() is beginner
        assert task in asyncio.all_tasks()
        go.set()
        await task
        assert seen == [task, task]

    run(test)


def test_it_begins_from_a_callback_too(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        began = asyncio.get_running_loop().create_future()

        async def work() -> None:
            began.set_result(asyncio.current_task())

        asyncio.get_running_loop().call_soon(lambda: begin_at_once(work()))
        assert isinstance(await began, asyncio.Task)

    run(test)


def test_what_it_sets_in_its_context_stays_there(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        seen: list[str] = []

        async def work() -> None:
            seen.append(WORD.get())
            WORD.set("mine")
            await asyncio.sleep(0)
            seen.append(WORD.get())

        WORD.set("yours")
        task = begin_at_once(work())
        assert WORD.get() == "yours"
        await task
        assert seen == ["yours", "mine"]
        assert WORD.get() == "yours"

    run(test)


def test_the_loop_is_as_it_was(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        before = dict(vars(loop))
        called: list[int] = []

        async def work() -> None:
            asyncio.get_running_loop().call_soon(called.append, 1)

        begin_at_once(work())
        assert vars(loop) == before
        asyncio.get_running_loop().call_soon(called.append, 2)
        assert not called
        await asyncio.sleep(0)
        assert called == [1, 2]

    run(test)


def test_a_loop_that_somebody_has_changed_stays_changed() -> None:
    async def test() -> None:
        loop: Any = asyncio.get_running_loop()
        usual, calls = loop.call_soon, []

        def counting(*args: Any, **options: Any) -> asyncio.Handle:
            calls.append(args)
            return usual(*args, **options)

        loop.call_soon = counting

        async def work() -> None:
            await asyncio.sleep(0)

        task = begin_at_once(work())
        assert loop.call_soon is counting
        await task
        assert calls

    asyncio.run(test())


def test_where_the_loop_has_a_task_factory_the_task_is_its(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        made: list[asyncio.Task[Any]] = []

        def factory(loop: asyncio.AbstractEventLoop, work: Any, **_: Any) -> asyncio.Task[Any]:
            made.append(asyncio.Task(work, loop=loop))
            return made[-1]

        async def work() -> None:
            await asyncio.sleep(0)

        asyncio.get_running_loop().set_task_factory(factory)
        task = begin_at_once(work())
        assert made == [task]
        await task

    run(test)


def test_an_error_is_its_own_and_a_cancellation_reaches_it(run: Callable[[Test], None]) -> None:
    async def test() -> None:
        async def fails() -> None:
            raise ValueError("mine")

        failed = begin_at_once(fails())
        assert isinstance(failed.exception(), ValueError)
        waits = begin_at_once(asyncio.sleep(60))
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    run(test)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_the_process_is_raised_by_the_loop_and_not_to_who_began_it(
    run: Callable[[Test], None], error: BaseException
) -> None:
    here: list[bool] = []

    async def test() -> None:
        async def ends() -> None:
            raise error

        beginner = asyncio.current_task()
        task = begin_at_once(ends())
        here.append(task.exception() is error and asyncio.current_task() is beginner)
        await asyncio.sleep(60)

    with pytest.raises(type(error)):
        run(test)
    assert here == [True]


async def test_a_step_in_a_context_that_is_in_use_comes_after() -> None:
    context = copy_context()
    steps: list[str] = []

    def within() -> None:
        step_at_once(asyncio.get_running_loop(), context, steps.append, "step")
        steps.append("user of the context")

    context.run(within)
    assert steps == ["user of the context"]
    await asyncio.sleep(0)
    assert steps == ["user of the context", "step"]


async def test_tasks_begin_within_tasks_that_began_at_once() -> None:
    order: list[str] = []

    async def nest(depth: int) -> None:
        order.append(f"in {depth}")
        if depth < 3:
            assert begin_at_once(nest(depth + 1)).done()
        order.append(f"out {depth}")

    begin_at_once(nest(1))
    assert order == ["in 1", "in 2", "in 3", "out 3", "out 2", "out 1"]
