"""`ends_the_task`: tells the end of a task from what code that is not ours has raised in it."""

from __future__ import annotations

import asyncio

__all__ = ["ends_the_task"]


def ends_the_task(error: BaseException) -> bool:
    """Whether `error`, just caught, is to go on, because somebody has cancelled or closed the running task.

    Everything else is a failure of the code that raised it, `SystemExit` and `GeneratorExit` too: a task group would
    take the node down with them. A `CancelledError` is a failure where nobody has cancelled this task, as when that
    code waited for another one.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if isinstance(error, GeneratorExit):
        # Of a coroutine that is being closed no step runs.
        return task is None
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)
