"""Tasks that begin, or go on, in the turn of the event loop in which the reason for it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NoReturn

__all__ = ["begin_at_once", "ready_task", "step_at_once"]


def begin_at_once(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task for `work` that has come as far as its first wait, if it has any. Otherwise it is `done`.

    What Python calls an eager task, from 3.12 on. A task that begins with the next turn costs twice as much, and a
    process that has nothing else to do pays for the turn too. Where the loop has a task factory, it begins then.
    The caller owns it.
    """
    task, begin = ready_task(work, copy_context())
    begin()
    return task


def ready_task(work: Coroutine[Any, Any, None], context: Context) -> tuple[asyncio.Task[None], Callable[[], None]]:
    """A task for `work`, and what has it begin in the turn of the event loop that calls it: so that who begins it can
    note whose task it is before. Each task must be begun. As `begin_at_once` otherwise.
    """
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is not None:
        return loop.create_task(work, context=context), _begins_by_itself
    first: list[Callable[..., Any]] = []

    def keep(step: Callable[..., Any], *_: Any, context: Context | None = None) -> None:
        first.append(step)

    # A task gives its first step to its loop while it is made; nothing else runs meanwhile.
    attributes = vars(loop)
    usual = attributes.get("call_soon")
    attributes["call_soon"] = keep
    try:
        task = asyncio.Task(work, loop=loop, context=context)
    finally:
        if usual is None:
            del attributes["call_soon"]
        else:
            attributes["call_soon"] = usual
    return task, partial(step_at_once, loop, context, first[0])


def step_at_once(loop: asyncio.AbstractEventLoop, context: Context, step: Callable[..., object], *args: object) -> None:
    """Run a step of a task of `loop` now, in its `context`, whichever task is running. Does not raise.

    What ends the process the loop raises with its next turn: whoever has called this still has work of others in hand.
    """
    running = asyncio.current_task(loop)
    if running is not None:
        asyncio.tasks._leave_task(loop, running)
    try:
        context.run(step, *args)
    except RuntimeError:
        # Somebody runs in this very context, or this very task: then it goes on after them.
        loop.call_soon(step, *args, context=context)
    except (SystemExit, KeyboardInterrupt) as error:
        loop.call_soon(_raise, error)
    finally:
        if running is not None:
            asyncio.tasks._enter_task(loop, running)


def _begins_by_itself() -> None:
    pass


def _raise(error: BaseException) -> NoReturn:
    raise error
