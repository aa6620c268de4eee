"""`session.live`: what a session holds but cannot save."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar, cast

from ..foreign_errors import ends_the_task
from .errors import SessionError

__all__ = ["LiveObjects"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CLOSE_TIMEOUT = 2.0
"""Seconds. Shorter than what the registry gives a whole actor, so that one object that hangs does not cost the rest."""


class LiveObjects:
    """Named objects of one live session: a browser, a transaction, an open file.

    Each is made by its factory on first use, closed when the session is passivated, moves or ends, and made anew
    on first use after that. Closed in reverse order of making, each within 2 seconds.
    """

    __slots__ = ("_closers", "_limit", "_making", "_objects")

    def __init__(self, limit: int = 64) -> None:
        self._objects: dict[str, Any] = {}
        self._closers: dict[str, Callable[[], Any]] = {}
        self._making: dict[str, asyncio.Event] = {}
        self._limit = limit

    async def get(
        self,
        name: str,
        factory: Callable[[], T | Awaitable[T]],
        *,
        close: Callable[[T], Any] | None = None,
    ) -> T:
        """The object called `name`, made by `factory` if this life of the session has none yet.

        `factory` may be sync or async. The object is closed by `close(object)` if given, else by its own
        `aclose()` or `close()` if it has one. Concurrent calls for one name make one object.

        Raises:
            SessionError: More than the limit of 64 objects.
            Whatever `factory` raises; then nothing is kept.
        """
        while (making := self._making.get(name)) is not None:
            await making.wait()
        if name in self._objects:
            return cast("T", self._objects[name])
        if len(self._objects) + len(self._making) >= self._limit:
            raise SessionError(f"session.live holds {self._limit} objects, its limit; close() one before {name!r}")
        # If this one fails, the first of those who wait tries again, and the others wait for that.
        making = self._making[name] = asyncio.Event()
        try:
            made = factory()
            made = cast("T", await made if inspect.isawaitable(made) else made)
            closer = (lambda: close(made)) if close is not None else _own_closer(made)
            self._objects[name] = made
            if closer is not None:
                self._closers[name] = closer
            return made
        finally:
            del self._making[name]
            making.set()

    def __contains__(self, name: str) -> bool:
        return name in self._objects

    async def close(self, name: str) -> None:
        """Close and forget the object called `name`, if there is one. What its closer raises is logged."""
        self._objects.pop(name, None)
        closer = self._closers.pop(name, None)
        if closer is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                done = closer()
                if inspect.isawaitable(done):
                    await done
        except asyncio.CancelledError:
            # A closer that awaits what it has just cancelled must not keep the others from being closed.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.warning("closing the live object %r ended in a cancellation", name)
        except BaseException as error:
            if ends_the_task(error):
                raise
            logger.exception("closing the live object %r failed", name)

    async def aclose(self) -> None:
        """Close all, last made first."""
        for name in reversed(list(self._objects)):
            await self.close(name)


def _own_closer(made: object) -> Callable[[], Any] | None:
    for method in ("aclose", "close"):
        closer = getattr(made, method, None)
        if callable(closer):
            return closer
    if isinstance(made, AbstractAsyncContextManager | AbstractContextManager):
        raise SessionError(
            "a live object that is only a context manager cannot be closed later: enter it in the factory, pass close="
        )
    return None
