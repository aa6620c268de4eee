"""`STORE_SERVERS`: what a cluster can keep its sessions in; each is started, killed, frozen and brought back alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from support.dynamodb import CREDENTIALS, DynamoServer, dynamodb_missing, fresh_table_name
from support.nats import nats_missing
from support.postgres import PostgresServer, postgres_missing
from support.redis import RedisServer, redis_missing
from understudy.runtime.commands.nats_server import NatsServer

__all__ = ["STORES", "STORE_SERVERS", "StoreServer", "store_missing"]


class StoreServer(Protocol):
    """A server with a store, set up so that what it has acknowledged survives its crash."""

    @property
    def url(self) -> str:
        """The store's URL; the same after each start."""
        ...

    async def start(self) -> None:
        """Start it, with what it had kept, and return when it takes calls."""
        ...

    async def stop(self) -> None:
        """End it, frozen or not, and leave nothing behind."""
        ...

    def kill(self) -> None:
        """As a crash would."""
        ...

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        ...

    def resume(self) -> None:
        """Undo `pause`."""
        ...


class _NatsApart:
    def __init__(self, directory: Path) -> None:
        self._server = NatsServer(directory / "store")
        self.kill, self.pause, self.resume = self._server.kill, self._server.pause, self._server.resume

    @property
    def url(self) -> str:
        return f"{self._server.url}/chaos-sessions"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()


class _Redis:
    def __init__(self, directory: Path) -> None:
        self._server = RedisServer(durable=True)
        self.kill, self.pause, self.resume = self._server.kill, self._server.pause, self._server.resume

    @property
    def url(self) -> str:
        return self._server.url

    async def start(self) -> None:
        self._server.start()

    async def stop(self) -> None:
        self._server.close()


class _Postgres:
    def __init__(self, directory: Path) -> None:
        self._server = PostgresServer(fsync=True)
        self.kill, self.pause, self.resume = self._server.crash, self._server.freeze, self._server.thaw

    @property
    def url(self) -> str:
        return self._server.url()

    async def start(self) -> None:
        self._server.start()

    async def stop(self) -> None:
        self._server.close()


class _DynamoDB:
    """moto would forget its tables. So a crash is one of the service's front: connections break, and tables stay."""

    def __init__(self, directory: Path) -> None:
        self._server = DynamoServer()
        self._table = fresh_table_name()
        self.pause, self.resume = self._server.pause, self._server.resume

    @property
    def url(self) -> str:
        return self._server.url(self._table)

    async def start(self) -> None:
        if self._server.running:
            self._server.away(False)
            return
        os.environ.update(CREDENTIALS)  # for the nodes
        self._server.start()
        self._server.create_table(self._table)

    async def stop(self) -> None:
        self._server.close()

    def kill(self) -> None:
        self._server.away(True)


STORE_SERVERS: dict[str, tuple[Callable[[Path], StoreServer], Callable[[], str | None]]] = {
    "nats-apart": (_NatsApart, nats_missing),
    "redis": (_Redis, redis_missing),
    "postgresql": (_Postgres, postgres_missing),
    "dynamodb": (_DynamoDB, dynamodb_missing),
}
"""By its name: how to make one, and why there can be none here."""

STORES = ("nats", "sqlite", *STORE_SERVERS)
"""What `ChaosCluster` takes: the cluster's own NATS, a file, or one of the servers."""


def store_missing(name: str) -> str | None:
    """Why no cluster can keep its sessions in `name` here; None if it can."""
    return STORE_SERVERS[name][1]() if name in STORE_SERVERS else None
