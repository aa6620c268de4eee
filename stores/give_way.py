"""`GiveWay`: how a busy event loop lets a worker thread have the interpreter.

CPython's lock goes to whoever is awake when it is free. A loop with much to do frees it for microseconds at a time,
in system calls, and each time wakes the waiting thread too late and starts its 5 ms of patience anew: a thread that
needs the lock twenty times for one commit then needs seconds. (Measured beside a loop that was busy in steps of
0.1 ms: 2 s for one save, and 2 to 5 ms with this class.) So while a thread has work and shows no progress, the loop
stands aside for a moment on purpose, until the thread says that it has passed.
"""

from __future__ import annotations

import asyncio
import sys
import threading

__all__ = ["GiveWay"]

CALM = 0.005
"""Seconds without progress before the loop stands aside. Below the kernel's own tick a timer costs every call 15 us."""

TICK = 0.001
"""The same, where standing aside has helped the last time."""

PATIENCE = 0.002
"""Most seconds to stand aside for a thread that is ready to run."""

GLANCE = 0.0002
"""Most seconds to stand aside for a thread that may be waiting for something else: about what a thread needs to wake
up. For nothing every `CALM` seconds, it costs the loop 4 percent."""


class GiveWay:
    """Between one event loop, which calls `expect` and `settle`, and one thread, which calls the rest.

    Nothing waits here while the thread makes progress by itself, or has nothing to do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._needed = getattr(sys, "_is_gil_enabled", lambda: True)()
        self._gate = threading.Lock()
        self._gate.acquire()
        self._standing_aside = False
        self._elsewhere = False
        self._working = False
        self._progress = 0
        self._progress_seen = 0
        self._pause = CALM
        self._timer: asyncio.TimerHandle | None = None

    def expect(self) -> None:
        """The thread has been given work."""
        self._working = True
        if self._timer is None and self._needed:
            self._progress_seen = self._progress
            self._timer = self._loop.call_later(self._pause, self._look)

    def settle(self) -> None:
        """All work is done."""
        self._working = False  # the timer finds out by itself: one that is cancelled and set for each call is dearer

    def waiting(self) -> None:
        """The thread is about to wait for something else than the interpreter, or may be: a disk, a lock."""
        self._elsewhere = True

    def running(self) -> None:
        """The thread has the interpreter again."""
        self._elsewhere = False
        self._progress += 1

    def passed(self) -> None:
        """The thread has no need of the interpreter for now."""
        self._progress += 1
        if self._standing_aside:
            self._standing_aside = False
            self._gate.release()

    def _look(self) -> None:
        self._timer = None
        if self._working and self._progress == self._progress_seen and self._stand_aside():
            self._pause = TICK
        else:
            self._pause = min(self._pause * 2, CALM)
        if self._working:
            self.expect()

    def _stand_aside(self) -> bool:
        self._standing_aside = True
        self._gate.acquire(timeout=GLANCE if self._elsewhere else PATIENCE)
        self._standing_aside = False
        self._gate.acquire(blocking=False)  # the thread may have opened it just after the time was up
        return self._progress != self._progress_seen
