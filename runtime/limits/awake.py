"""`within_awake`: a deadline that counts only the time in which this process could have taken the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar, cast

from ...actors.clock import Clock

__all__ = ["within_awake"]

T = TypeVar("T")

LOOKS: Final = 5


async def within_awake(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, in this task, for at most `seconds` of `clock` in which the event loop was not held up.

    A plain deadline takes an answer that lies unread, while a call computes for long or the machine is busy, for none:
    the timer fires first. Here the time is over after `LOOKS` parts of it, and however long the loop was held up in
    one of them, it counts as no more than that part.

    Raises:
        TimeoutError: The time was over first; `work` has been cancelled.

    Cancelling the caller cancels `work`.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    cancelling = task.cancelling()
    part = seconds / LOOKS
    looks = 0

    def look() -> None:
        nonlocal looks, timer
        looks += 1
        if looks < LOOKS:
            timer = clock.call_at(clock.monotonic() + part, look)
        else:
            task.cancel()

    timer = clock.call_at(clock.monotonic() + part, look)
    try:
        return await work
    except asyncio.CancelledError:
        # As in asyncio.timeout: somebody else's cancellation that came at the same moment wins.
        if looks >= LOOKS and task.cancelling() - 1 <= cancelling:
            raise TimeoutError(f"not done within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
        if looks >= LOOKS:
            task.uncancel()
