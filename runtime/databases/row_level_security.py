"""`RowLevelSecurity`: one set of tables for all tenants, of which each sees its own rows."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Any

from ...actors.session import TenantContext
from ...actors.session.tenants.secret import Secret
from .limits import DatabaseLimits
from .pool import ConnectionPool
from .row_check import row_problems
from .shared_database import SharedDatabase
from .tenant_connection import TenantConnection
from .transaction import tenant_transaction

__all__ = ["RowLevelSecurity"]


class RowLevelSecurity(SharedDatabase):
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
        super().__init__(
            url, tenant_setting=tenant_setting, principal_setting=principal_setting, check=check, limits=limits
        )
        self._shared = frozenset(shared)

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

    async def _problems(self, raw: Any) -> list[str]:
        return await row_problems(raw, self._asker.tenant, self._shared)

    def connection(self, tenant: TenantContext) -> AbstractAsyncContextManager[TenantConnection]:
        """As `TenantContext.connection`."""
        assert self._pool is not None
        return tenant_transaction(self._pool, tenant, self._limits, self._asker.of(tenant))
