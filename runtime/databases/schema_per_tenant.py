"""`SchemaPerTenant`: in one database a schema for each tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from ...actors.session import TenantContext
from ...actors.session.tenants.names import schema_name
from ...actors.session.tenants.secret import Secret
from .limits import DatabaseLimits
from .row_check import role_problems
from .shared_database import SharedDatabase
from .statements import identifier, text
from .tenant_connection import TenantConnection
from .transaction import tenant_transaction

__all__ = ["SchemaPerTenant"]


class SchemaPerTenant(SharedDatabase):
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
        super().__init__(
            url, tenant_setting=tenant_setting, principal_setting=principal_setting, check=check, limits=limits
        )
        self._schema = schema
        self._roles = roles
        # Temporary tables last: where no place is given to them they come first, and hide what they are called after.
        self._after = ", ".join(
            [*(identifier(each) if each != "public" else "public" for each in shared_schemas), "pg_temp"]
        )

    async def _problems(self, raw: Any) -> list[str]:
        return await role_problems(raw)

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
        settings = {**self._asker.of(tenant), "search_path": f"{quoted}, {self._after}"}
        # Or a schema that is not there would be passed over without a word.
        there = f"SELECT {text(quoted)}::regnamespace"
        role = (f"SET LOCAL ROLE {quoted}",) if self._roles else ()
        return tenant_transaction(self._pool, tenant, self._limits, settings, there, *role)
