"""`Clock`: where the registry's time comes from, and `within`, an await that may not hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast

__all__ = ["Clock", "SystemClock", "Timer", "within"]

T = TypeVar("T")


class Timer(Protocol):
    """A callback that is due."""

    def cancel(self) -> None:
        """Do not call back. Does nothing if it has happened already."""
        ...


class Clock(Protocol):
    """Monotonic time. `SystemClock` is the real one, `understudy.actors.testing.ManualClock` is for tests."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`. Cancellation leaves nothing behind."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the event loop once `monotonic()` has reached `when`; soon if it has already."""
        ...


class SystemClock:
    """The machine's monotonic clock and the running event loop's timers."""

    __slots__ = ()

    # As it is, without a function around it: it is read several times in each call.
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        # Relative, because a loop's own time need not count from the same moment as `time.monotonic`.
        return asyncio.get_running_loop().call_later(when - time.monotonic(), callback)


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, in this task, for at most `seconds` of `clock`.

    Raises:
        TimeoutError: The time was over first; `work` has been cancelled.

    Cancelling the caller cancels `work`.
    """
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    cancelling = task.cancelling()
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = clock.call_at(clock.monotonic() + seconds, expire)
    try:
        return await work
    except asyncio.CancelledError:
        # As in asyncio.timeout: somebody else's cancellation that came at the same moment wins.
        if expired and task.cancelling() - 1 <= cancelling:
            raise TimeoutError(f"not done within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
        if expired:
            task.uncancel()
