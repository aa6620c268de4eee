"""`LoopLock`: a lock for what may outlive an event loop, such as a resolver whose runtime is started again."""

from __future__ import annotations

import asyncio

__all__ = ["LoopLock"]


class LoopLock:
    """A lock of one loop cannot be waited for on another: each new loop has a new one."""

    __slots__ = ("_lock", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    def here(self) -> asyncio.Lock:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock
