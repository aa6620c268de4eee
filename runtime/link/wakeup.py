"""`Wakeup`: lets one task wait until something may have changed."""

from __future__ import annotations

import asyncio

__all__ = ["Wakeup"]


class Wakeup:
    """An event for one waiter, half the cost of `asyncio.Event`. Wakes for nothing now and then: wait in a loop."""

    __slots__ = ("_awake", "_waiter")

    def __init__(self) -> None:
        self._awake = False
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Whoever waits goes on; if nobody does, the next wait returns at once."""
        waiter = self._waiter
        if waiter is None:
            self._awake = True
        elif not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Return once `wake` was called since the last wait. Cancellation leaves nothing behind."""
        if self._awake:
            self._awake = False
            return
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None
