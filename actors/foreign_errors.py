"""`ends_the_task`: tells the end of a task from what code that is not ours has raised in it."""

from __future__ import annotations

import asyncio
import signal
from dis import opmap
from functools import partial
from types import CodeType
from typing import Any, Final, cast

__all__ = ["came_by_signal", "ends_the_task"]

_RAISE: Final = opmap["RAISE_VARARGS"]


def ends_the_task(error: BaseException) -> bool:
    """Whether `error`, just caught, is to go on, because somebody has cancelled or closed the running task.

    Everything else is a failure of the code that raised it, `SystemExit` and `GeneratorExit` too: a task group would
    take the node down with them. A `CancelledError` is a failure where nobody has cancelled this task, as when that
    code waited for another one. A `KeyboardInterrupt` is one unless it came by a signal.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, KeyboardInterrupt):
        return came_by_signal(error)
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if isinstance(error, GeneratorExit):
        # Of a coroutine that is being closed no step runs.
        return task is None
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


def came_by_signal(error: KeyboardInterrupt) -> bool:
    """Whether somebody pressed Ctrl-C: `error` was raised by the handler of SIGINT, not by a `raise` of other code.

    Python's own handler leaves no frame, so that the last one is whatever ran at that moment, between two instructions
    none of which has raised anything.
    """
    last = error.__traceback__
    if last is None:
        return False
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    return code.co_code[last.tb_lasti] != _RAISE or code is _code_of(signal.getsignal(signal.SIGINT))


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, partial):
        handler = cast("partial[Any]", handler).func
    return getattr(getattr(handler, "__func__", handler), "__code__", None)
