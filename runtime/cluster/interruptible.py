"""`Interruptible`: work that a node ends when it leaves, because it would not end by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["Interruptible"]


class Interruptible:
    """Runs work in the tasks of its callers, until `interrupt`."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[Any], bool] = {}

    async def during(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await `work`; True if it was interrupted. Raises what it raises, a cancellation by others included."""
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = False
        try:
            await work
        except asyncio.CancelledError:
            if not self._running[task] or task.uncancel():
                raise
            return True
        finally:
            interrupted = self._running.pop(task)
        if interrupted and task.cancelling():
            task.uncancel()
        return interrupted

    def interrupt(self) -> None:
        """Cancel all that runs now."""
        for task, interrupted in self._running.items():
            if not interrupted:
                self._running[task] = True
                task.cancel()
