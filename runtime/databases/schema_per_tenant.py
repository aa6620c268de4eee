"""`SchemaPerTenant`: in one database a schema for each tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Self

from ...actors.session import TenantContext
from ...actors.session.tenants.names import schema_name
from ...actors.session.tenants.running import helpers_for
from ...actors.session.tenants.secret import Secret
from .errors import DatabaseMisconfigured
from .limits import DatabaseLimits
from .pool import ConnectionPool
from .row_check import role_problems
from .statements import identifier, opening, setting_name, text
from .statistics import statistics_of, timeouts
from .tenant_connection import TenantConnection
from .transaction import tenant_transaction

__all__ = ["SchemaPerTenant"]


class SchemaPerTenant:
    """`Runtime(database=SchemaPerTenant(url))`: names without a schema mean the tenant's, for one transaction
    (`search_path`).

    With `roles=True` each transaction also takes on the role of the same name, which may use that schema alone: then
    PostgreSQL itself refuses `another_schema.orders`. Works behind PgBouncer in transaction mode.
    """

    def __init__(
        self,
        url: str | Secret,
        *,
        schema: Callable[[str], str] = schema_name,
        roles: bool = False,
        shared_schemas: Sequence[str] = (),
        tenant_setting: str = "app.tenant",
        principal_setting: str = "app.principal",
        check: bool = True,
        limits: DatabaseLimits | None = None,
    ) -> None:
        """
        Args:
            url: `postgresql://user:password@host/database`.
            schema: The name of a tenant's schema, from its id. It must give no two tenants one name; the default
                does not (`t_acme_` and 160 bits of a hash).
            roles: Whether each tenant has a role, called as its schema, that the one we connect as is a member of.
            shared_schemas: Schemas that are looked in after the tenant's.
            tenant_setting, principal_setting: Settings of PostgreSQL that tell who asks, for triggers and the like.
            check: Whether to look at the start that we do not connect as a superuser.
            limits: Of the one pool of connections that all tenants share.

        Raises:
            ConfigurationError: A name is none, or asyncpg is not installed.
        """
        self._url = url if isinstance(url, Secret) else Secret(url)
        self._schema = schema
        self._roles = roles
        # Temporary tables last: where no place is given to them they come first, and hide what they are called after.
        self._after = ", ".join(
            [*(identifier(each) if each != "public" else "public" for each in shared_schemas), "pg_temp"]
        )
        self._settings = (setting_name(tenant_setting), setting_name(principal_setting))
        self._check = check
        self._limits = limits or DatabaseLimits()
        self._pool: ConnectionPool | None = None

    async def __aenter__(self) -> Self:
        """
        Raises:
            DatabaseMisconfigured: We connect as a superuser, or as one with BYPASSRLS.
            DatabaseUnavailable: The server cannot be reached to look.
            ConfigurationError: The URL cannot be used.
        """
        pool = ConnectionPool(self._url, self._limits)
        await pool.open()
        try:
            if self._check:
                async with pool.connection("") as raw:
                    if problems := await role_problems(raw):
                        raise DatabaseMisconfigured(problems)
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

    def schema_of(self, tenant: str) -> str:
        """The name of the schema (and, with `roles`, the role) of `tenant`, as whoever creates it must call it.

        Raises:
            ConfigurationError: `schema` gave something that is no name.
        """
        name = self._schema(tenant)
        identifier(name)
        return name

    def connection(self, tenant: TenantContext) -> AbstractAsyncContextManager[TenantConnection]:
        """As `TenantContext.connection`."""
        assert self._pool is not None
        quoted = identifier(self._schema(tenant.tenant))
        settings = dict(zip(self._settings, (tenant.tenant, tenant.principal), strict=True))
        settings |= {"search_path": f"{quoted}, {self._after}", **timeouts(self._limits)}
        # Or a schema that is not there would be passed over without a word.
        there = f"SELECT {text(quoted)}::regnamespace"
        role = (f"SET LOCAL ROLE {quoted}",) if self._roles else ()
        begin = opening(settings, there, *role)
        return tenant_transaction(self._pool, tenant.tenant, begin, partial(helpers_for, tenant), self._limits)

    def forget(self, tenant: str) -> None:
        """Nothing is kept for one tenant."""

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return statistics_of([] if self._pool is None else [self._pool])
