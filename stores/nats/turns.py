"""`Turns`: one writer of a record, or of a stream, at a time within this node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from .errors import NatsUnavailable

__all__ = ["Turns"]

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """A lock for each key that is in use. Who waits longer than `timeout` seconds gives up."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._locks: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def alone(self, key: K) -> AsyncGenerator[None]:
        """While no other holds `key`. Raises `NatsUnavailable` if that takes too long."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        if lock.locked():
            try:
                async with asyncio.timeout(self._timeout):
                    await lock.acquire()
            except TimeoutError as error:
                raise NatsUnavailable(f"{_name(key)} waits for a write to NATS that is not answered") from error
        else:
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _name(key: object) -> str:
    return f"{key[1]} of {key[0]}" if type(key) is tuple else str(key)
