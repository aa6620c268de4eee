"""`Wakeup`: lets one task wait until something may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

from ...actors.at_once import step_at_once

__all__ = ["Wakeup"]


class Wakeup:
    """An event for one waiter, who awaits it. Wakes for nothing now and then: wait in a loop.

    To its task it is a future that can be waited for again and again: awaiting it yields it itself, and it is asked for
    as little as asyncio asks of futures that are not its own (`asyncio.isfuture`). So a wait makes no object, and who
    wakes may have the task go on there and then.
    """

    __slots__ = ("_asyncio_future_blocking", "_awake", "_cancelled", "_context", "_loop", "_resume")

    def __init__(self) -> None:
        self._asyncio_future_blocking = False
        self._awake = False
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop
        self._context: Context
        self._resume: Callable[[Wakeup], object] | None = None
        """What has the task go on; None while nobody waits."""

    def wake(self) -> None:
        """Whoever waits goes on with the next turn of the event loop; if nobody does, the next wait returns at once."""
        resume = self._resume
        if resume is None:
            self._awake = True
        else:
            self._resume = None
            self._loop.call_soon(resume, self, context=self._context)

    def wake_at_once(self) -> None:
        """As `wake`, but whoever waits has gone on, up to where it waits again, when this returns."""
        resume = self._resume
        if resume is None:
            self._awake = True
        else:
            self._resume = None
            step_at_once(self._loop, self._context, resume, self)

    def __await__(self) -> Generator[Any, None, None]:
        """Return once it was woken since the last wait. Cancellation leaves nothing behind."""
        if self._awake:
            self._awake = False
            return
        self._loop = asyncio.get_running_loop()
        self._asyncio_future_blocking = True
        yield self

    # What a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of who waits."""
        return self._loop

    def add_done_callback(self, resume: Callable[[Wakeup], object], *, context: Context) -> None:
        """The task waits from now on."""
        self._resume = resume
        self._context = context

    def cancel(self, msg: object = None) -> bool:
        """The task is cancelled: False if it is about to go on anyway."""
        if self._resume is None:
            return False
        self._cancelled = True
        self.wake()
        return True

    def result(self) -> None:
        """What the task finds when it goes on."""
        if self._cancelled:
            self._cancelled = False
            raise asyncio.CancelledError
