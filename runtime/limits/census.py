"""Counting what a tenant has in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from ...actors.clock import Clock, within
from ...stores import Address, SessionStore

__all__ = ["StoreCensus"]

_PAGE: Final = 1000
_AT_ONCE: Final = 16


class StoreCensus:
    """Asks the store. What it costs is the store's listing, and for bytes a load of each record."""

    def __init__(self, store: SessionStore, *, clock: Clock, timeout: float) -> None:
        """`timeout`: seconds for one answer of the store."""
        self._store = store
        self._clock = clock
        self._timeout = timeout

    async def sessions(self, tenant: str) -> int:
        """How many sessions the tenant has.

        Raises:
            StoreError, TimeoutError: The store does not answer.
        """
        return sum([len(page) async for page in self._pages(tenant)])

    async def state(self, tenant: str) -> int:
        """How many bytes their snapshots take. Raises as `sessions`."""
        total = 0
        async for page in self._pages(tenant):
            for start in range(0, len(page), _AT_ONCE):
                sizes = await asyncio.gather(*(self._size(address) for address in page[start : start + _AT_ONCE]))
                total += sum(sizes)
        return total

    async def _size(self, address: Address) -> int:
        record = await within(self._clock, self._timeout, self._store.load(address))
        return 0 if record is None else len(record.snapshot)

    async def _pages(self, tenant: str) -> AsyncGenerator[list[Address]]:
        cursor = None
        while True:
            listing = self._store.list(tenant=tenant, cursor=cursor, limit=_PAGE)
            page = await within(self._clock, self._timeout, listing)
            yield [record.address for record in page.records]
            cursor = page.cursor
            if cursor is None:
                return
