"""`Deadline`: the reply of an envelope that has a deadline, and the timer that watches it."""

from __future__ import annotations

import asyncio
from typing import Any

from ..stores import Address
from .clock import Clock
from .counters import Counters
from .envelope import Envelope
from .errors import DeadlineExceeded

__all__ = ["Deadline"]


class Deadline:
    """Stands between the envelope and its own reply, so that the timer goes when the answer does.

    A message that waits is answered when its deadline passes, not when its turn would have come. A turn that runs is
    cancelled then, and answered when it is over; once it has returned, its save is not interrupted any more.
    """

    __slots__ = ("_address", "_clock", "_counters", "_envelope", "_reply", "_task", "_timer", "_when", "expired")

    def __init__(self, envelope: Envelope, address: Address, when: float, clock: Clock, counters: Counters) -> None:
        self._envelope = envelope
        self._address = address
        self._when = when
        self._clock = clock
        self._counters = counters
        self._reply = envelope.reply
        self._task: asyncio.Task[Any] | None = None
        self.expired = False
        self._timer = clock.call_at(when, self._expire)
        envelope.reply = self

    def resolve(self, result: Any) -> None:
        self._timer.cancel()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.resolve(result)

    def fail(self, error: BaseException) -> None:
        self._timer.cancel()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.fail(error)

    def begin(self, task: asyncio.Task[Any] | None) -> bool:
        """The turn is about to begin, in `task`; False if it must not, and the caller has been told."""
        if not self.expired and self._clock.monotonic() >= self._when:
            self._expire()
        self._task = task
        return not self.expired

    def leave_alone(self) -> None:
        """The turn has returned: too late to cancel it."""
        self._timer.cancel()
        if self.expired and self._task is not None:
            self._task.uncancel()
        self._task = None

    def _expire(self) -> None:
        self.expired = True
        self._counters.deadlines_exceeded += 1
        if self._task is not None:
            self._task.cancel()
        else:
            self._envelope.cancelled = True
            self.fail(DeadlineExceeded(self._address, started=False))
