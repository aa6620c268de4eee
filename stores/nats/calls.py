"""`Calls`: how many calls of a store are under way, how many there were, and the end of taking them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from .errors import NatsUnavailable

__all__ = ["Calls"]


class Calls:
    """Lets at most `most` calls be under way, and none after `close`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._counts = {"write": 0, "read": 0}
        self._failed = {"write": 0, "read": 0}

    @asynccontextmanager
    async def one(self, kind: str) -> AsyncGenerator[None]:
        """Around each call; `kind` is `write` or `read`. Raises `NatsUnavailable` if it is not to be."""
        if self._closed:
            raise NatsUnavailable("the NATS store is closed")
        if self._running >= self._most:
            raise NatsUnavailable(f"{self._running} calls to the NATS store are under way; NATS is slower than its use")
        self._running += 1
        self._idle.clear()
        self._counts[kind] += 1
        try:
            yield
        except NatsUnavailable:
            self._failed[kind] += 1
            raise
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def close(self, timeout: float) -> None:
        """Take no more calls, and wait for those under way, for `timeout` seconds at most."""
        self._closed = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            pass

    def stats(self) -> dict[str, float]:
        """Calls and failed ones of writing and reading, and calls under way."""
        return {
            "write_operations": self._counts["write"],
            "write_failed": self._failed["write"],
            "read_operations": self._counts["read"],
            "read_failed": self._failed["read"],
            "calls_running": self._running,
        }
