"""`inspect_store`: what is at a store's place, and what is missing there, without changing anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .environment import AUTO, store_of_environment
from .errors import StoreURLError
from .url import scheme_of, sqlite_path

__all__ = ["Inspector", "Layout", "Maker", "inspect_store"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What of a store is there. Opening it makes the rest."""

    where: str
    """The place in words, without secrets."""
    version: int | None
    """The format of what is there; None: there is no store."""
    newest: int
    """The format that this understudy writes."""
    there: tuple[str, ...]
    """Which parts are there: tables, buckets."""
    steps: tuple[str, ...]
    """What opening the store, and its event log, or a `Maker`, would do to make or renew it: as the server is told,
    or in words."""
    warnings: tuple[str, ...]
    """What of the place and its settings may lose acknowledged writes, a sentence each with what to do."""


class Inspector(Protocol):
    """Looks at the place of one store. It makes, changes and repairs nothing there."""

    async def look(self) -> Layout:
        """What is there now.

        Raises:
            StoreVersionError, StoreCorrupt, StoreURLError: What is there is newer, damaged, not a store, or not what
                the URL says.
            StoreUnavailable: It cannot be reached, or refuses us.
        """
        ...

    async def sizes(self) -> Mapping[str, int]:
        """What is stored, as far as the store can tell: `snapshot_bytes`, `stored_bytes` (with all that is around
        them), `streams`, `events`, `event_bytes`. Of records that wait to be swept too. A look at all of them in some
        stores: about a second for each million. Raises as `look`.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. Idempotent."""
        ...


@runtime_checkable
class Maker(Inspector, Protocol):
    """An inspector of a place that opening a store does not make."""

    async def make(self) -> None:
        """Make the place as the steps of `look` have it, but for what is in it. Idempotent. Raises as `look`."""
        ...


async def inspect_store(url: str, *, timeout: float = 5.0) -> Inspector:
    """Reach for the place that `url` names, as `open_store` has it, to look at it. `timeout`: seconds for each answer.

    Raises:
        StoreURLError: `url` cannot be understood, names a store of this process's memory, or one that was added with
            `register_scheme` and cannot be looked at.
        StoreUnavailable: It cannot be reached, or refuses us.
    """
    if url == AUTO:
        url = store_of_environment(os.environ).url
    scheme, rest = scheme_of(url)
    if scheme == "memory":
        raise StoreURLError("memory:// is in the memory of the process that opened it: there is nothing to look at")
    if scheme == "sqlite":
        from .sqlite.inspector import SQLiteInspector

        return SQLiteInspector(sqlite_path(rest))
    try:
        if scheme in ("nats", "tls"):
            from .nats.inspector import NatsInspector

            return await NatsInspector.reach(url, timeout=timeout)
        if scheme in ("postgresql", "postgres"):
            from .postgresql.inspector import PostgresInspector

            return await PostgresInspector.reach(url, timeout=timeout)
        if scheme.startswith("redis"):
            from .redis.inspector import RedisInspector

            return await RedisInspector.reach(url, timeout=timeout)
        if scheme == "dynamodb":
            from .dynamodb.inspector import DynamoInspector

            return await DynamoInspector.reach(url, timeout=timeout)
    except ImportError as error:
        missing = _EXTRAS.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        raise StoreURLError(f"the {scheme}:// store needs {missing}") from error
    raise StoreURLError(f"a store of {scheme}:// cannot be looked at from outside")


_EXTRAS = {
    "nats": "nats-py: pip install 'understudy[cluster]'",
    "asyncpg": "asyncpg: pip install 'understudy[postgres]'",
    "redis": "redis-py: pip install 'understudy[redis]'",
    "hiredis": "redis-py: pip install 'understudy[redis]'",
    "aiobotocore": "aiobotocore: pip install 'understudy[dynamodb]'",
}
