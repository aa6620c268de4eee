"""`run_through`: runs the node's event loop to its end, whatever the hosted server's own tasks throw at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ...actors.foreign_errors import came_by_signal

__all__ = ["run_through"]

logger = logging.getLogger("understudy.serve")

T = TypeVar("T")


def run_through(
    main: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """As `asyncio.run`, but `SystemExit` and `KeyboardInterrupt` end it only if `main` has raised them, or Ctrl-C has.

    Out of any other task, or callback, asyncio lets them end the loop: a tool that calls `sys.exit` in a task of its
    own would take everybody's sessions along. The task that raised it has failed, and whoever awaits it is told so.
    """
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if task.done() or (isinstance(error, KeyboardInterrupt) and came_by_signal(error)):
                    raise
                logger.error("a task of the hosted server tried to end the process", exc_info=error)
