# ruff: noqa: PT012
"""A schema, and with roles a role, for each tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from support.postgres import PgBouncer, PostgresServer
from tenants import rows
from tenants.rows import Database, offering
from tenants.running import as_tenant
from understudy.actors.session.tenants.helpers import TenantHelpers
from understudy.runtime import (
    ConfigurationError,
    DatabaseLimits,
    DatabaseMisconfigured,
    SchemaPerTenant,
    TenantNotProvisioned,
)
from understudy.runtime.databases.statements import identifier

TENANTS = ["acme", "ACME", "it's", 'a"b\\c', "ünïcode"]


@pytest.fixture
async def shop(postgres_server: PostgresServer, postgres_database: str) -> AsyncIterator[Database]:
    """Each of `TENANTS` has a schema with a table, and a role."""
    async with rows.database(postgres_server, postgres_database, attributes="NOINHERIT") as shop:
        names = [SchemaPerTenant(shop.url).schema_of(tenant) for tenant in TENANTS]
        for tenant, name in zip(TENANTS, names, strict=True):
            await shop.admin.execute(f"""
                CREATE ROLE {name}; GRANT {name} TO {shop.role};
                CREATE SCHEMA {name}; CREATE TABLE {name}.orders (item text);
                GRANT USAGE ON SCHEMA {name} TO {name}, {shop.role};
                GRANT ALL ON {name}.orders TO {name}, {shop.role};
            """)
            await shop.admin.execute(f"INSERT INTO {name}.orders VALUES ($1)", f"of {tenant}")
        yield shop
        await shop.admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", shop.role)
        for name in names:
            await shop.admin.execute(f"DROP OWNED BY {name}; DROP SCHEMA {name} CASCADE; DROP ROLE {name}")


ONE = DatabaseLimits(connections=1, acquire_timeout=0.3)


@pytest.fixture(params=["paths", "roles", "roles behind pgbouncer"])
async def helpers(request: pytest.FixtureRequest, shop: Database) -> AsyncIterator[TenantHelpers]:
    url = shop.url
    if "pgbouncer" in request.param:
        pgbouncer: PgBouncer = request.getfixturevalue("pgbouncer")
        url = pgbouncer.url(shop.name, user=shop.role, password=rows.PASSWORD)
    async with offering(SchemaPerTenant(url, roles="roles" in request.param, limits=ONE)) as helpers:
        yield helpers


async def test_names_without_a_schema_mean_the_tenants(
    helpers: TenantHelpers, request: pytest.FixtureRequest, shop: Database
) -> None:
    for tenant in TENANTS:
        with as_tenant(helpers, tenant) as context:
            async with context.connection() as connection:
                assert await connection.fetchval("SELECT item FROM orders") == f"of {tenant}"
                await connection.execute("INSERT INTO orders VALUES (current_setting('app.tenant'))")
                # What lasts longer than a transaction, if it is let.
                await connection.execute("SELECT set_config('search_path', 'pg_catalog', false)")
                await connection.execute("RESET ROLE")
    for tenant in TENANTS:
        with as_tenant(helpers, tenant) as context:
            async with context.connection() as connection:
                assert [row[0] for row in await connection.fetch("SELECT item FROM orders")] == [f"of {tenant}", tenant]
    # Whoever is not there has nothing, and not what another has left.
    with as_tenant(helpers, "nobody") as nobody, pytest.raises(TenantNotProvisioned, match="must create it"):
        await nobody.connection().__aenter__()
    with as_tenant(helpers, "acme") as acme, pytest.raises(asyncpg.UndefinedTableError):
        async with acme.connection() as connection:
            await connection.fetchval("SELECT * FROM elsewhere")
    assert helpers.stats()["database_discarded_total"] == 0


async def test_with_roles_another_schema_is_refused_by_the_server(shop: Database) -> None:
    theirs = SchemaPerTenant(shop.url).schema_of("ACME")
    async with offering(SchemaPerTenant(shop.url, roles=True, limits=ONE)) as helpers:
        with as_tenant(helpers, "acme") as acme, pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with acme.connection() as connection:
                await connection.fetch(f"SELECT * FROM {theirs}.orders")
    with pytest.raises(TenantNotProvisioned):
        await shop.admin.execute("CREATE SCHEMA t_x")
        async with offering(SchemaPerTenant(shop.url, schema=lambda _: "t_x", roles=True)) as helpers:
            with as_tenant(helpers, "x") as context:
                await context.connection().__aenter__()


async def test_a_temporary_table_hides_no_table_of_the_tenants(helpers: TenantHelpers, shop: Database) -> None:
    await shop.admin.execute(f"GRANT TEMPORARY ON DATABASE {shop.name} TO PUBLIC")
    with as_tenant(helpers, "acme") as acme:
        async with acme.connection() as connection:
            await connection.execute("CREATE TEMPORARY TABLE orders (item text)")
            assert await connection.fetchval("SELECT count(*) FROM orders") == 1


async def test_shared_schemas_come_after_the_tenants_own(shop: Database) -> None:
    await shop.admin.execute(f"""
        CREATE SCHEMA "for all"; CREATE TABLE "for all".countries AS SELECT 'CH' AS code;
        CREATE TABLE "for all".orders AS SELECT 'everybody''s' AS item;
        GRANT USAGE ON SCHEMA "for all" TO {shop.role}; GRANT SELECT ON ALL TABLES IN SCHEMA "for all" TO {shop.role};
    """)
    async with offering(SchemaPerTenant(shop.url, shared_schemas=("for all",))) as helpers:
        with as_tenant(helpers, "acme") as acme:
            async with acme.connection() as connection:
                assert await connection.fetchval("SELECT code FROM countries") == "CH"
                assert await connection.fetchval("SELECT item FROM orders") == "of acme"


async def test_names_that_are_the_operators_are_quoted_and_checked(shop: Database) -> None:
    odd = 'odd "name"; --'
    await shop.admin.execute(f"CREATE SCHEMA {identifier(odd)}; GRANT ALL ON SCHEMA {identifier(odd)} TO {shop.role}")
    async with offering(SchemaPerTenant(shop.url, schema=lambda _: odd)) as helpers:
        with as_tenant(helpers, "acme") as acme:
            async with acme.connection() as connection:
                await connection.execute("CREATE TABLE made (n int)")
                assert await connection.fetchval("SELECT current_schema()") == odd
    async with offering(SchemaPerTenant(shop.url, schema=lambda tenant: "x" * 60 + tenant)) as helpers:
        with as_tenant(helpers, "acme") as acme, pytest.raises(ConfigurationError, match="1 to 63 bytes"):
            acme.connection()
    with pytest.raises(DatabaseMisconfigured, match="is a superuser"):
        await offering(SchemaPerTenant(shop.server.url(shop.name))).__aenter__()
