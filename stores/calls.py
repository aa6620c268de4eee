"""`Calls`: how many calls of a store are under way, how many there were, and the end of taking them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from .errors import StoreUnavailable

__all__ = ["Calls"]


class Calls:
    """Lets at most `most` calls be under way, and none after `close`: `with calls.writing: ...` around each.

    `server` is what the store is in, for its messages; `refusal` makes the error of a call that is not let in.
    """

    def __init__(self, most: int, server: str, refusal: Callable[[str], StoreUnavailable]) -> None:
        self.most = most
        self.server = server
        self.refusal = refusal
        self.running = 0
        self.closed = False
        self.writing = _Kind(self)
        self.reading = _Kind(self)
        self._idle: asyncio.Event | None = None

    def ended(self) -> None:
        """One call less is under way."""
        self.running -= 1
        if self._idle is not None and not self.running:
            self._idle.set()

    async def close(self, timeout: float) -> None:
        """Take no more calls, and wait for those under way, for `timeout` seconds at most."""
        self.closed = True
        self._idle = asyncio.Event()
        if not self.running:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            pass

    def stats(self) -> dict[str, float]:
        """Calls and failed ones of writing and reading, and calls under way."""
        return {
            "write_operations": self.writing.count,
            "write_failed": self.writing.failed,
            "read_operations": self.reading.count,
            "read_failed": self.reading.failed,
            "calls_running": self.running,
        }


class _Kind:
    """A context manager for any number of calls at once: it keeps nothing of a single one."""

    __slots__ = ("_calls", "count", "failed")

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.count = 0
        self.failed = 0

    def __enter__(self) -> None:
        calls = self._calls
        if calls.closed:
            raise calls.refusal(f"the {calls.server} store is closed")
        if calls.running >= calls.most:
            raise calls.refusal(
                f"{calls.running} calls to the {calls.server} store are under way; it is slower than its use"
            )
        calls.running += 1
        self.count += 1

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is not None and isinstance(exc, StoreUnavailable):
            self.failed += 1
        self._calls.ended()
