"""`Patience`: one deadline for many waiters, at the price of one timer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Patience"]

logger = logging.getLogger(__name__)

W = TypeVar("W", bound=Hashable)

_TICKS = 4


class Patience(Generic[W]):
    """Tells of each waiter that has waited for `delay` seconds, give or take a quarter.

    A timer of its own for each of 10,000 requests a second, nearly all of which end long before it, costs more than
    what most of them do. As all wait equally long, they come due in the order in which they began.
    """

    __slots__ = ("_delay", "_on_due", "_timer", "_waiting")

    def __init__(self, delay: float, on_due: Callable[[W], object]) -> None:
        self._delay = delay
        self._on_due = on_due
        self._waiting: dict[W, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, waiter: W) -> None:
        """`waiter` begins to wait."""
        loop = asyncio.get_running_loop()
        self._waiting[waiter] = loop.time() + self._delay
        if self._timer is None:
            self._timer = loop.call_later(self._delay / _TICKS, self._tick)

    def end(self, waiter: W) -> None:
        """`waiter` waits no more. Nothing happens if it had come due."""
        self._waiting.pop(waiter, None)

    def __len__(self) -> int:
        return len(self._waiting)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due: list[W] = []
        for waiter, when in self._waiting.items():
            if when > now:
                break
            due.append(waiter)
        for waiter in due:
            del self._waiting[waiter]
            try:
                self._on_due(waiter)
            except Exception:
                # The others wait on.
                logger.exception("a waiter whose time was up could not be told")
        # Idle costs nothing: without waiters there is no timer.
        self._timer = loop.call_later(self._delay / _TICKS, self._tick) if self._waiting else None
