"""`each` and `patiently`: a command's work on many records, a few at a time, with stores that may be away a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from ...stores import StoreUnavailable

__all__ = ["AT_ONCE", "PATIENCE", "each", "patiently"]

T = TypeVar("T")

AT_ONCE = 32
"""Records on their way, and in memory, at a time."""

PATIENCE = 60.0
"""Seconds that a store may be away before a command gives up."""


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int = AT_ONCE) -> None:
    """Do `work` on every item, so many at a time. Raises what the first raises that fails."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
    else:
        return
    raise first


async def patiently(call: Callable[..., Awaitable[T]], *args: Any, patience: float = PATIENCE, **options: Any) -> T:
    """What `call` answers, which is repeated while the store is away: of what may be repeated.

    Raises:
        StoreUnavailable: It was away for longer than `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return await call(*args, **options)
        except StoreUnavailable as error:
            if time.monotonic() + error.retry_after > deadline:
                raise
            await asyncio.sleep(error.retry_after)
