"""`TenantCaches`: what the tenants of one node keep in memory, each apart and all together bounded."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

from .cache_bounds import CacheBounds
from .cache_size import estimated_size
from .errors import CacheError

__all__ = ["TenantCaches"]

T = TypeVar("T")

ENTRY: Final = 400
"""Bytes that an entry takes beside its key and its value."""
SHELF: Final = 350
"""Bytes that a tenant takes beside its id and its entries: of many tenants that keep little, the most of all."""
_ABSENT: Final = object()


class _Entry(NamedTuple):
    value: Any
    size: int
    until: float


class _Shelf:
    """What one tenant keeps."""

    __slots__ = ("entries", "making", "size")

    def __init__(self) -> None:
        self.entries: OrderedDict[str, _Entry] = OrderedDict()
        self.making: dict[str, _Making] = {}
        self.size = 0


class _Making:
    """A value that one call makes and others wait for."""

    __slots__ = ("done", "maker")

    def __init__(self) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.maker = asyncio.current_task()


class TenantCaches:
    """The caches of all tenants at one node. Sync methods may be called from any thread.

    Not shared between nodes: each has its own, and what one forgets the others may still have until its time is over.
    """

    def __init__(self, bounds: CacheBounds | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds or CacheBounds()
        self._clock = clock
        self._lock = threading.Lock()
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._size = 0
        self._shelves_size = 0
        """What the shelves themselves take."""
        self._hits = self._misses = self._evictions = self._too_large = 0

    def get(self, tenant: str, key: str, default: Any) -> Any:
        """The value of `key`, if it is there and young enough."""
        with self._lock:
            shelf = self._shelves.get(tenant)
            entry = None if shelf is None else shelf.entries.get(key)
            if shelf is None or entry is None:
                self._misses += 1
                return default
            if self._clock() >= entry.until:
                self._drop(tenant, shelf, key)
                self._misses += 1
                return default
            shelf.entries.move_to_end(key)
            self._shelves.move_to_end(tenant)
            self._hits += 1
            return entry.value

    def set(self, tenant: str, key: str, value: Any, ttl: float | None, size: int | None) -> bool:
        """Keep `value`; whether there was room for it. Whoever makes one meanwhile keeps what he makes to himself."""
        entry = self._entry(key, value, ttl, size)
        with self._lock:
            shelf = self._shelf(tenant)
            shelf.making.pop(key, None)
            return self._put(tenant, shelf, key, entry)

    def delete(self, tenant: str, key: str) -> bool:
        """Whether `key` was there."""
        with self._lock:
            shelf = self._shelves.get(tenant)
            if shelf is None:
                return False
            shelf.making.pop(key, None)
            return self._drop(tenant, shelf, key)

    async def get_or_make(
        self,
        tenant: str,
        key: str,
        make: Callable[[], Awaitable[T] | T],
        *,
        ttl: float | None,
        size: int | None,
        timeout: float,
    ) -> T:
        """The value of `key`, made by `make` if it is not there. As `TenantCache.get_or_make`."""
        while True:
            value = self.get(tenant, key, _ABSENT)
            if value is not _ABSENT:
                return cast("T", value)
            mine: _Making | None = None
            with self._lock:
                shelf = self._shelf(tenant)
                making = shelf.making.get(key)
                # A loop of another thread cannot wait for this one's; beyond the bound everybody makes his own.
                alone = len(shelf.making) >= self._bounds.max_entries
                if making is None and not alone:
                    shelf.making[key] = mine = _Making()
                elif making is not None and making.done.get_loop() is not asyncio.get_running_loop():
                    making = None
            if making is None:
                return await self._make(tenant, key, make, mine, ttl, size, timeout)
            if making.maker is asyncio.current_task():
                raise CacheError(f"what makes {key[:64]!r} of tenant.cache asks for it itself, and would wait forever")
            # Shielded: who waits may be cancelled, and others wait for the same.
            value = await asyncio.shield(making.done)
            if value is not _ABSENT:
                return cast("T", value)
            # Its maker was cancelled: one of those who waited makes it.

    async def _make(
        self,
        tenant: str,
        key: str,
        make: Callable[[], Awaitable[T] | T],
        mine: _Making | None,
        ttl: float | None,
        size: int | None,
        timeout: float,
    ) -> T:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                made = make()
                value = cast("T", await made if inspect.isawaitable(made) else made)
            # Before it is given to those who wait, as a size that cannot be told is their error too.
            entry = self._entry(key, value, ttl, size)
        except Exception as failure:
            error = failure
            if limit.expired():
                error = CacheError(f"{key[:64]!r} of tenant.cache was not made within {timeout:g} s")
            self._made(tenant, key, mine, error=error)
            if error is failure:
                raise
            raise error from None
        except BaseException:
            self._made(tenant, key, mine)
            raise
        self._made(tenant, key, mine, entry=entry)
        return value

    def _made(
        self,
        tenant: str,
        key: str,
        mine: _Making | None,
        *,
        entry: _Entry | None = None,
        error: Exception | None = None,
    ) -> None:
        with self._lock:
            shelf = self._shelves.get(tenant)
            current = mine is None or (shelf is not None and shelf.making.get(key) is mine)
            if shelf is not None and mine is not None and current:
                del shelf.making[key]
            # Deleted, set or forgotten since it was begun: it may be made of what is stale.
            if current and entry is not None:
                self._put(tenant, self._shelf(tenant), key, entry)
            elif shelf is not None:
                self._drop_if_empty(tenant, shelf)
        if mine is None or mine.done.done():
            return
        if error is not None:
            # A future cannot carry it.
            mine.done.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
            # Nobody need be waiting.
            mine.done.exception()
        else:
            mine.done.set_result(_ABSENT if entry is None else entry.value)

    def _entry(self, key: str, value: Any, ttl: float | None, size: int | None) -> _Entry:
        ttl = self._bounds.ttl if ttl is None else ttl
        if not ttl > 0:
            raise CacheError(f"ttl {ttl!r} of {key[:64]!r} must be a number of seconds above 0")
        size = estimated_size(value) if size is None else size
        if not size >= 0:
            raise CacheError(f"size {size!r} of {key[:64]!r} must be a number of bytes")
        return _Entry(value, size + 4 * len(key) + ENTRY, self._clock() + ttl)

    def _shelf(self, tenant: str) -> _Shelf:
        shelf = self._shelves.get(tenant)
        if shelf is None:
            shelf = self._shelves[tenant] = _Shelf()
            self._shelves_size += _shelf_size(tenant)
        self._shelves.move_to_end(tenant)
        return shelf

    def _put(self, tenant: str, shelf: _Shelf, key: str, entry: _Entry) -> bool:
        old = shelf.entries.pop(key, None)
        if old is not None:
            shelf.size -= old.size
            self._size -= old.size
        if entry.size > self._bounds.max_bytes:
            self._too_large += 1
            self._drop_if_empty(tenant, shelf)
            return False
        shelf.entries[key] = entry
        shelf.size += entry.size
        self._size += entry.size
        while len(shelf.entries) > self._bounds.max_entries or shelf.size > self._bounds.max_bytes:
            self._drop(tenant, shelf, next(iter(shelf.entries)))
            self._evictions += 1
        room = self._bounds.max_total_bytes + _shelf_size(tenant)
        while self._size + self._shelves_size > room:
            # Not this tenant, which was used last and fits by itself.
            unlucky = next((name for name, each in self._shelves.items() if each.entries and name != tenant), None)
            if unlucky is None:
                break
            self._evictions += self._empty(unlucky)
        return True

    def _drop(self, tenant: str, shelf: _Shelf, key: str) -> bool:
        entry = shelf.entries.pop(key, None)
        if entry is None:
            return False
        shelf.size -= entry.size
        self._size -= entry.size
        self._drop_if_empty(tenant, shelf)
        return True

    def _drop_if_empty(self, tenant: str, shelf: _Shelf) -> None:
        if not shelf.entries and not shelf.making and self._shelves.get(tenant) is shelf:
            del self._shelves[tenant]
            self._shelves_size -= _shelf_size(tenant)

    def _empty(self, tenant: str) -> int:
        shelf = self._shelves[tenant]
        count = len(shelf.entries)
        self._size -= shelf.size
        shelf.size = 0
        shelf.entries.clear()
        self._drop_if_empty(tenant, shelf)
        return count

    def forget(self, tenant: str) -> None:
        """Drop all that `tenant` keeps, and what is being made for it."""
        with self._lock:
            shelf = self._shelves.get(tenant)
            if shelf is not None:
                shelf.making.clear()
                self._empty(tenant)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._shelves.clear()
            self._size = self._shelves_size = 0

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        with self._lock:
            return {
                "tenants": len(self._shelves),
                "entries": sum(len(shelf.entries) for shelf in self._shelves.values()),
                "bytes": self._size,
                "hits_total": self._hits,
                "misses_total": self._misses,
                "evictions_total": self._evictions,
                "too_large_total": self._too_large,
            }


def _shelf_size(tenant: str) -> int:
    return SHELF + 4 * len(tenant)
