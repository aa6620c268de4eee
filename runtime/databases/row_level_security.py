"""`RowLevelSecurity`: one set of tables for all tenants, of which each sees its own rows."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Self

from ...actors.session import TenantContext
from ...actors.session.tenants.running import helpers_for
from ...actors.session.tenants.secret import Secret
from .errors import DatabaseMisconfigured
from .limits import DatabaseLimits
from .pool import ConnectionPool
from .row_check import row_problems
from .statements import opening, setting_name
from .statistics import statistics_of, timeouts
from .tenant_connection import TenantConnection
from .transaction import tenant_transaction

__all__ = ["RowLevelSecurity"]


class RowLevelSecurity:
    """`Runtime(database=RowLevelSecurity(url))`: policies tell rows by the setting `app.tenant` (and `app.principal`),
    which holds for one transaction.

        ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
        ALTER TABLE orders FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON orders USING (tenant = current_setting('app.tenant', true));

    Connect as a role that is no superuser; at the start `check` looks whether PostgreSQL heeds the policies for it.
    Works behind PgBouncer in transaction mode. It keeps apart what a server's own statements reach: who can make it
    send SQL of his own can also change the setting.
    """

    def __init__(
        self,
        url: str | Secret,
        *,
        tenant_setting: str = "app.tenant",
        principal_setting: str = "app.principal",
        shared: Collection[str] = (),
        check: bool = True,
        limits: DatabaseLimits | None = None,
    ) -> None:
        """
        Args:
            url: `postgresql://user:password@host/database`.
            tenant_setting: Of PostgreSQL, that policies read the tenant's id from.
            principal_setting: The same for the principal.
            shared: Tables and views (`schema.name`) that all tenants may see whole, which `check` passes over.
            check: Whether to look at the start if rows are kept apart.
            limits: Of the one pool of connections that all tenants share.

        Raises:
            ConfigurationError: A setting's name is none, or asyncpg is not installed.
        """
        self._url = url if isinstance(url, Secret) else Secret(url)
        self._settings = (setting_name(tenant_setting), setting_name(principal_setting))
        self._shared = frozenset(shared)
        self._check = check
        self._limits = limits or DatabaseLimits()
        self._pool: ConnectionPool | None = None

    async def __aenter__(self) -> Self:
        """
        Raises:
            DatabaseMisconfigured: `check` found something.
            DatabaseUnavailable: The server cannot be reached to look.
            ConfigurationError: The URL cannot be used.
        """
        pool = ConnectionPool(self._url, self._limits)
        await pool.open()
        try:
            if self._check:
                await self._look(pool)
        except BaseException:
            await pool.close()
            raise
        self._pool = pool
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def check(self) -> None:
        """Look whether PostgreSQL keeps rows apart for the role that we connect as: after a migration, say.

        Raises:
            DatabaseMisconfigured: It does not; its `problems` say why, and what to do.
            DatabaseUnavailable: The server cannot be reached.
        """
        pool = ConnectionPool(self._url, DatabaseLimits(connections=1))
        await pool.open()
        try:
            await self._look(pool)
        finally:
            await pool.close()

    async def _look(self, pool: ConnectionPool) -> None:
        async with pool.connection("") as raw:
            problems = await row_problems(raw, self._settings[0], self._shared)
        if problems:
            raise DatabaseMisconfigured(problems)

    def connection(self, tenant: TenantContext) -> AbstractAsyncContextManager[TenantConnection]:
        """As `TenantContext.connection`."""
        assert self._pool is not None
        settings = dict(zip(self._settings, (tenant.tenant, tenant.principal), strict=True))
        begin = opening(settings | timeouts(self._limits))
        return tenant_transaction(self._pool, tenant.tenant, begin, partial(helpers_for, tenant), self._limits)

    def forget(self, tenant: str) -> None:
        """Nothing is kept for one tenant."""

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return statistics_of([] if self._pool is None else [self._pool])
