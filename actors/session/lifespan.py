"""`Lifespan`: one lifespan of a server, in a task of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from mcp.server.lowlevel import Server

from ..foreign_errors import ends_the_task
from .errors import HandlerExit
from .surface import SURFACE

__all__ = ["Lifespan"]

logger = logging.getLogger(__name__)


class Lifespan:
    """In a task of its own: it may hold task groups, which only that task may leave."""

    def __init__(self, server: Server[Any]) -> None:
        self.name = server.name
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._state: asyncio.Future[Any] = self._loop.create_future()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """From its start to its end. Never raises, but for cancellation."""
        # It begins in somebody's call, and is not of it.
        SURFACE.set(None)
        try:
            async with self._server.lifespan(self._server) as state:
                self._state.set_result(state)
                await self._stop.wait()
        except BaseException as error:
            if ends_the_task(error):
                raise
            if not self._state.done():
                self._state.set_exception(error if isinstance(error, Exception) else HandlerExit(error))
            else:
                logger.error("the lifespan of server %r failed", self.name, exc_info=error)
        finally:
            self._state.cancel()

    async def begun(self, task: asyncio.Task[None], timeout: float | None) -> Any:
        """What it yields, once it has begun in `task`. Cancelled, or after `timeout` seconds, the lifespan is given up.

        Raises:
            TimeoutError: It has not begun in time.
            Whatever it raises.
        """
        self._task = task
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await asyncio.shield(self._state)
        except BaseException:
            self.cut()
            if limit.expired():
                raise TimeoutError(f"not started within {timeout} s") from None
            raise

    def end(self) -> None:
        self._stop.set()

    def end_soon(self) -> None:
        """`end`, from any thread: a garbage collector may be in any."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def cut(self) -> None:
        """Cancel it."""
        if self._task is not None:
            self._task.cancel()
