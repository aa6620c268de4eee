"""`Waiting`: calls that no connection has taken yet, and which of them may share a statement."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .connection import Connection
from .errors import Failure

__all__ = ["ALONE", "Call", "Kind", "Waiting"]

ALONE: Any = object()
"""The answer of a `Kind` for a call that must be sent again by itself."""

_GROUP_BYTES = 2**20
"""Of what calls that share a statement bring along; one alone may be larger."""


class Kind(NamedTuple):
    """One kind of call."""

    name: str
    writes: bool
    run: Callable[[Connection, Sequence[Any]], Awaitable[Sequence[Any]]]
    """Answers calls, given what each asks: a value, an error to raise, or `ALONE` for each, in their order."""
    most: int = 1
    """Most calls in one statement."""


class Call:
    """One call, from its queueing to its answer."""

    __slots__ = ("alone", "asked", "due", "future", "key", "kind", "number", "size")

    def __init__(
        self, kind: Kind, future: asyncio.Future[Any], asked: object, key: object, size: int, due: float, number: int
    ) -> None:
        self.kind = kind
        self.future = future
        self.asked = asked
        self.key = key
        self.size = size
        self.due = due
        self.number = number
        self.alone = kind.most == 1

    def settle(self, answer: object) -> None:
        """Give the caller, if it still waits, a value or an error."""
        if self.future.done():
            return
        if isinstance(answer, BaseException):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


class Waiting:
    """Calls of each kind in the order of their coming. `len` of it is how many there are."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Call]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, call: Call) -> None:
        """At the end."""
        self._queue(call.kind).append(call)
        self._length += 1

    def put_back(self, calls: Iterable[Call]) -> None:
        """At the front: they were taken before."""
        for call in sorted(calls, key=lambda call: call.number, reverse=True):
            self._queue(call.kind).appendleft(call)
            self._length += 1

    def take(self, now: float, too_late: Failure) -> list[Call]:
        """The call that has waited longest, and what may share its statement. Those whose time is over get `too_late`;
        there may be nothing left."""
        queue = min((queue for queue in self._queues.values() if queue), key=lambda queue: queue[0].number)
        most = queue[0].kind.most
        taken: list[Call] = []
        passed: list[Call] = []
        keys: set[object] = set()
        size = 0
        while queue and len(taken) < most and len(passed) < most:
            call = queue[0]
            if taken and size + call.size > _GROUP_BYTES:
                break
            queue.popleft()
            self._length -= 1
            if call.future.done():
                continue
            if call.due < now:
                call.settle(too_late.error())
            elif taken and (call.alone or (call.key is not None and call.key in keys)):
                passed.append(call)
            else:
                taken.append(call)
                keys.add(call.key)
                size += call.size
                if call.alone:
                    break
        self.put_back(passed)
        return taken

    def refuse(self, failure: Failure) -> None:
        """Let all of them fail."""
        for queue in self._queues.values():
            while queue:
                self._length -= 1
                queue.popleft().settle(failure.error())

    def _queue(self, kind: Kind) -> deque[Call]:
        queue = self._queues.get(kind.name)
        if queue is None:
            queue = self._queues[kind.name] = deque()
        return queue
