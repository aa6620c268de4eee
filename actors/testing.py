"""`ManualClock`: time that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

__all__ = ["ManualClock", "settle"]

_ROUNDS = 30
"""Loop iterations that let a chain of callbacks and awaits run out; a longer chain needs another `settle`."""


async def settle(rounds: int = _ROUNDS) -> None:
    """Let everything run that can run without time passing."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A `Clock` that stands still until `advance`. Use it on one event loop."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = count()
        self._due: list[tuple[float, int, _ManualTimer]] = []

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._now + seconds, lambda: done.done() or done.set_result(None))
        try:
            await done
        finally:
            timer.cancel()

    def call_at(self, when: float, callback: Callable[[], object]) -> _ManualTimer:
        timer = _ManualTimer(callback)
        if when <= self._now:
            asyncio.get_running_loop().call_soon(self._fire, timer)
        else:
            heapq.heappush(self._due, (when, next(self._order), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Each timer fires at its moment, and what it causes has run before time goes on."""
        target = self._now + seconds
        await settle()
        while self._due and self._due[0][0] <= target:
            self._now = self._due[0][0]
            while self._due and self._due[0][0] <= self._now:
                self._fire(heapq.heappop(self._due)[2])
            await settle()
        self._now = target
        await settle()

    @property
    def timers(self) -> int:
        """Callbacks that are due and not cancelled: a quiet registry has only its sweepers'."""
        return sum(timer.callback is not None for _, _, timer in self._due)

    def _fire(self, timer: _ManualTimer) -> None:
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback()
