"""`DatabasePerTenant`: a database, and so connections of its own, for each tenant."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

from ...actors.session import TenantContext
from ...actors.session.tenants.names import schema_name
from ...actors.session.tenants.secret import Secret
from ...actors.task_owner import TaskOwner
from ..errors import ConfigurationError
from .asker_settings import AskerSettings
from .errors import DatabaseBusy, DatabaseUnavailable
from .limits import DatabaseLimits
from .pool import ConnectionPool
from .statements import identifier
from .statistics import statistics_of
from .tenant_connection import TenantConnection
from .transaction import tenant_transaction

__all__ = ["DatabasePerTenant"]


class DatabasePerTenant:
    """`Runtime(database=DatabasePerTenant(url))`: nothing of two tenants is ever on one connection.

    Each tenant has a small pool, made when it is needed; beyond `max_databases` the one that was used least recently
    is closed, if nobody uses it. What is in another database no statement can reach.
    """

    def __init__(
        self,
        url: str | Secret | Callable[[str], str | Secret],
        *,
        database: Callable[[str], str] = schema_name,
        max_databases: int = 32,
        tenant_setting: str = "app.tenant",
        principal_setting: str = "app.principal",
        limits: DatabaseLimits | None = None,
    ) -> None:
        """
        Args:
            url: `postgresql://user:password@host`, in which each tenant's database takes the place of the name; or a
                function that gives the whole URL for a tenant's id: each may have a server and a role of its own.
            database: The name of a tenant's database, from its id; it must give no two tenants one name.
            max_databases: Pools at once. All together there are at most `max_databases` times `limits.connections`.
            tenant_setting, principal_setting: Settings of PostgreSQL that tell who is asking.
            limits: Of each tenant's pool; 2 connections where nothing is said.

        Raises:
            ConfigurationError: A value is out of range.
        """
        if not max_databases > 0:
            raise ConfigurationError(f"max_databases is {max_databases!r}; it must be greater than 0")
        self._url = Secret(url) if isinstance(url, str) else url
        self._database = database
        self._most = max_databases
        self._asker = AskerSettings(tenant_setting, principal_setting)
        limits = limits or DatabaseLimits(connections=2)
        self._limits = replace(limits, connections_of_one=limits.connections_of_one or limits.connections)
        self._pools: OrderedDict[str, ConnectionPool] = OrderedDict()
        self._closing: TaskOwner | None = None

    async def __aenter__(self) -> Self:
        self._closing = await TaskOwner().__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        closing, self._closing = self._closing, None
        pools = list(self._pools.values())
        self._pools.clear()
        async with asyncio.TaskGroup() as tasks:
            for pool in pools:
                tasks.create_task(pool.close())
        if closing is not None:
            await closing.__aexit__(exc_type, exc, tb)

    def database_of(self, tenant: str) -> str:
        """The name of the database of `tenant`, as whoever creates it must call it.

        Raises:
            ConfigurationError: `database` gave something that is no name.
        """
        name = self._database(tenant)
        identifier(name)
        return name

    @asynccontextmanager
    async def _transaction(self, tenant: TenantContext) -> AsyncGenerator[TenantConnection]:
        pool = await self._pool_of(tenant.tenant)
        async with tenant_transaction(pool, tenant, self._limits, self._asker.of(tenant)) as connection:
            yield connection

    def connection(self, tenant: TenantContext) -> AbstractAsyncContextManager[TenantConnection]:
        """As `TenantContext.connection`."""
        return self._transaction(tenant)

    async def _pool_of(self, tenant: str) -> ConnectionPool:
        if self._closing is None:
            raise DatabaseUnavailable("the runtime has stopped")
        pool = self._pools.get(tenant)
        if pool is None:
            made = ConnectionPool(self._url_of(tenant), self._limits)
            # Connects to nothing, and so does not wait; but it may be somebody else's turn in between.
            await made.open()
            pool = self._pools.setdefault(tenant, made)
            self._make_room(tenant)
        self._pools.move_to_end(tenant)
        return pool

    def _make_room(self, tenant: str) -> None:
        while len(self._pools) > self._most:
            unused = next((name for name, pool in self._pools.items() if pool.idle and name != tenant), None)
            if unused is None:
                self._pools.pop(tenant).cut()
                raise DatabaseBusy(f"the databases of {self._most} tenants are in use, as many as may be at once")
            self._close(unused)

    def _close(self, tenant: str, *, patience: float = 5.0) -> None:
        pool = self._pools.pop(tenant)
        if self._closing is not None:
            self._closing.spawn(pool.close(patience=patience))

    def _url_of(self, tenant: str) -> Secret:
        if not isinstance(self._url, Secret):
            told = self._url(tenant)
            return told if isinstance(told, Secret) else Secret(told)
        parts = urlsplit(self._url.reveal())
        return Secret(urlunsplit(parts._replace(path=f"/{quote(self.database_of(tenant), safe='')}")))

    def forget(self, tenant: str) -> None:
        """Close the tenant's pool, as soon as nobody uses it any more: its URL is asked for anew."""
        if tenant in self._pools:
            self._close(tenant, patience=self._limits.idle_timeout)

    def stats(self) -> dict[str, int | float]:
        """Plain numbers, of the pools that are open."""
        return statistics_of(self._pools.values())
