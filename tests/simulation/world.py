"""`World`: virtual time and all chance of one schedule. `Process`: what one operating system process does in it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from random import Random
from typing import Any

__all__ = ["TIMED_OUT", "Process", "Promise", "World"]

TIMED_OUT: Any = type("TimedOut", (), {"__repr__": lambda _: "TIMED_OUT"})()

Script = Generator[Any, Any, Any]
"""Yields seconds to sleep, or a `Promise` to wait for; is sent the promise's value."""


class World:
    """Everything happens in the order of virtual time, then of cause."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.lines: list[str] | None = [] if tracing else None
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.events = 0

    def after(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heappush(self._queue, (self.now + seconds, self._count, act, args))

    def run(self, until: float) -> None:
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, act, args = heappop(queue)
            self.events += 1
            act(*args)
        self.now = until

    def note(self, who: str, what: str, *args: Any) -> None:
        """A line of the trace."""
        if self.lines is not None:
            self.lines.append(f"{self.now:9.4f}  {who:<10} {what % args if args else what}")

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability


class Promise:
    """An answer that may come. The first one counts."""

    __slots__ = ("done", "value", "waiter")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.waiter: Callable[[Any], None] | None = None

    def resolve(self, value: Any) -> None:
        if not self.done:
            self.done = True
            self.value = value
            if self.waiter is not None:
                self.waiter(value)


class Process:
    """Runs scripts by its own clock, which starts anywhere and goes a little wrong. May be stopped, and killed.

    What happens to a stopped process waits for it, and is handled at once when it goes on: in the order of arrival, or
    messages before timers.
    """

    __slots__ = ("_backlog", "_offset", "_rate", "_world", "dead", "name", "stopped")

    def __init__(self, world: World, name: str) -> None:
        random = world.random
        self._world = world
        self._offset = random.uniform(0.0, 1e5)
        self._rate = 1.0 + random.uniform(-0.01, 0.01)
        self.name = name
        self.dead = False
        self.stopped = False
        self._backlog: list[tuple[bool, Callable[..., None], tuple[Any, ...]]] = []

    def clock(self) -> float:
        return self._offset + self._world.now * self._rate

    def post(self, act: Callable[..., None], *args: Any) -> None:
        """Something has come from outside."""
        if self.dead:
            return
        if self.stopped:
            self._backlog.append((False, act, args))
        else:
            act(*args)

    def _fire(self, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self.dead:
            return
        if self.stopped:
            self._backlog.append((True, act, args))
        else:
            act(*args)

    def timer(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        self._world.after(seconds / self._rate, self._fire, act, args)

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        backlog, self._backlog = self._backlog, []
        if self._world.chance(0.5):
            backlog.sort(key=lambda item: item[0])
        for _, act, args in backlog:
            if not self.dead:
                act(*args)

    def kill(self) -> None:
        self.dead = True
        self._backlog.clear()

    def spawn(self, script: Script, then: Callable[[Any], None] | None = None) -> None:
        """Run `script` until it first waits, and on from there as what it waits for comes."""

        def step(value: Any) -> None:
            if self.dead:
                return
            while True:
                try:
                    waited = script.send(value)
                except StopIteration as end:
                    if then is not None:
                        then(end.value)
                    return
                if not isinstance(waited, Promise):
                    self.timer(waited, step, None)
                    return
                if not waited.done:
                    waited.waiter = step
                    return
                value = waited.value

        step(None)

    def within(self, seconds: float, promise: Promise) -> Promise:
        """`promise`, which becomes `TIMED_OUT` after so long."""
        self.timer(seconds, promise.resolve, TIMED_OUT)
        return promise
