"""`local_stores`: one of each store that this machine has a server for, started for a benchmark."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from ..runtime.commands.nats_server import NatsServerMissing
from .local_dynamodb import dynamodb_missing, local_dynamodb
from .local_postgres import local_postgres, postgres_missing
from .local_redis import local_redis, redis_missing
from .measure import Progress

__all__ = ["LocalStore", "local_sqlite", "local_stores"]


class LocalStore(NamedTuple):
    """A store, and how it is called in a report."""

    name: str
    url: str


def local_sqlite(stack: AsyncExitStack) -> LocalStore:
    """A file in the system's temporary folder, which goes with `stack`."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-bench-stores-"))
    return LocalStore("sqlite", f"sqlite:///{Path(folder, 'sessions.db')}")


async def local_stores(stack: AsyncExitStack, progress: Progress) -> list[LocalStore]:
    """SQLite, and Redis, PostgreSQL, moto and NATS where their programs are here. All but moto keep what they
    acknowledge on the disk.

    They end with `stack`.

    Raises:
        Refused, NatsServerError: One does not start.
    """
    found = [local_sqlite(stack)]
    for name, missing, start in (
        ("redis, appendfsync always", redis_missing(), local_redis),
        ("postgresql, synchronous_commit on", postgres_missing(), local_postgres),
        ("dynamodb, played by moto", dynamodb_missing(), local_dynamodb),
    ):
        if missing is not None:
            progress(f"left out: {missing}")
            continue
        found.append(LocalStore(name, await stack.enter_async_context(start())))
    try:
        from .local_nats import local_nats

        server = await stack.enter_async_context(local_nats())
        found.append(LocalStore("nats, sync_interval always", f"{server.url}/bench"))
    except (ModuleNotFoundError, NatsServerMissing) as error:
        progress(f"left out: nats: {error}")
    return found
