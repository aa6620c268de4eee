"""When a node lets go of streams that nobody came back to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from understudy.runtime.streams.left_streams import GRACE, LeftStreams
from understudy.stores import Address


class Timers:
    """An event loop's timers, due when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Any]] = []

    def call_later(self, delay: float, callback: Any) -> object:
        self._due.append((self.now + delay, callback))
        return self._due[-1]

    def advance(self, to: float) -> None:
        while self._due and min(self._due)[0] <= to:
            timer = min(self._due, key=lambda due: due[0])
            self._due.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = to


async def test_what_is_left_while_the_timer_runs_goes_hardly_later_than_it_should(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: timers)
    left = LeftStreams(lambda: timers.now, lambda address, key: left.remove(address, key) and None)
    address = Address.new("session")
    for second in range(10):
        timers.advance(float(second))
        left.add(address, str(second), 1)

    timers.advance(GRACE + 4.9)
    assert (address, "9") in left
    timers.advance(GRACE + 9.0 + GRACE / 12)
    assert len(left) == 0
    assert left.bytes == 0
