"""`LeftStreams`: how long streams stay in memory that nobody reads, and how many of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ...stores import Address

__all__ = ["GRACE", "LeftStreams"]

MAX_KEPT_STREAMS: Final = 16_384
MAX_KEPT_BYTES: Final = 256 * 2**20
GRACE: Final = 60.0
"""Seconds that a finished stream, or a standalone one without a reader, stays in memory for a client to come back to.
One that has arrived leaves the event log with that; any other stays there for as long as the log keeps it."""


class LeftStreams:
    """Those of one node, in the order in which they were left, each for `GRACE` seconds. Beyond `MAX_KEPT_STREAMS` or
    `MAX_KEPT_BYTES` the one goes that was left first. One timer, and none where nothing is kept."""

    def __init__(self, clock: Callable[[], float], drop: Callable[[Address, str], None]) -> None:
        """`clock`: monotonic seconds. `drop`: lets go of a stream by its key, `remove` included."""
        self._clock = clock
        self._drop = drop
        self._streams: OrderedDict[tuple[Address, str], tuple[float, int]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: tuple[Address, str]) -> bool:
        return stream in self._streams

    def add(self, address: Address, key: str, size: int) -> None:
        """Keep a stream of `size` bytes, which is not here, from now on. For bounds to be kept, `sweep`."""
        self._streams[address, key] = (self._clock() + GRACE, size)
        self.bytes += size
        if self._timer is None:
            # Nothing else may happen on a node that has gone quiet: what is left must go in time all the same.
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._sweep_in_time)

    def remove(self, address: Address, key: str) -> bool:
        """Somebody reads it again, or it is gone; whether it was here."""
        left = self._streams.pop((address, key), None)
        if left is not None:
            self.bytes -= left[1]
        return left is not None

    def weigh(self, address: Address, key: str, size: int) -> None:
        """bounded: a stream that is here may grow while it waits for a reader."""
        left = self._streams.get((address, key))
        if left is not None:
            self._streams[address, key] = (left[0], size)
            self.bytes += size - left[1]
            if self.bytes > MAX_KEPT_BYTES:
                self.sweep()

    def sweep(self) -> None:
        """Drop what has been left for too long, or is too much. Costs what it drops."""
        now = self._clock()
        while self._streams:
            (address, key), (until, _) = next(iter(self._streams.items()))
            if until > now and len(self._streams) <= MAX_KEPT_STREAMS and self.bytes <= MAX_KEPT_BYTES:
                return
            self._drop(address, key)

    def _sweep_in_time(self) -> None:
        self._timer = None
        self.sweep()
        if self._streams:
            until, _ = next(iter(self._streams.values()))
            # Together those that were left at about the same time.
            wait = max(until - self._clock(), GRACE / 12)
            self._timer = asyncio.get_running_loop().call_later(wait, self._sweep_in_time)

    def close(self) -> None:
        """Nothing is dropped in time any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
