"""`Places`: who may have a connection now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from .errors import DatabaseBusy
from .limits import DatabaseLimits

__all__ = ["Places"]


class Places:
    """As many as there are connections, and not all for one tenant. Who waits is served in order of arrival, of each
    tenant and then of all."""

    def __init__(self, limits: DatabaseLimits) -> None:
        self._limits = limits
        self._all = asyncio.Semaphore(limits.connections)
        self._queues: dict[str, _Queue] = {}
        self.waiting = 0
        self.taken = 0
        self.busy = 0

    @asynccontextmanager
    async def one(self, tenant: str) -> AsyncGenerator[None]:
        """Hold a place within the block.

        Raises:
            DatabaseBusy: None became free in time, or too many of the tenant's calls wait.
        """
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = _Queue(self._limits.of_one)
        if queue.users >= self._limits.of_one + self._limits.waiting:
            self.busy += 1
            raise DatabaseBusy(f"{self._limits.waiting} calls of this tenant wait for a database connection already")
        queue.users += 1
        try:
            await self._wait(queue)
            self.taken += 1
            try:
                yield
            finally:
                self.taken -= 1
                self._all.release()
                queue.places.release()
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[tenant]

    async def _wait(self, queue: _Queue) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(self._limits.acquire_timeout):
                await queue.places.acquire()
                try:
                    await self._all.acquire()
                except BaseException:
                    queue.places.release()
                    raise
        except TimeoutError:
            self.busy += 1
            raise DatabaseBusy(
                f"no database connection became free within {self._limits.acquire_timeout:g} s: {self._limits.of_one} "
                f"are a tenant's at once, of {self._limits.connections} in all"
            ) from None
        finally:
            self.waiting -= 1


class _Queue:
    __slots__ = ("places", "users")

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.users = 0
