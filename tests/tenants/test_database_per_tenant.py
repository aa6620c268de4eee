"""A database for each tenant, and pools that make way for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from support.patience import PATIENCE
from support.postgres import PostgresServer, fresh_database_name
from tenants import rows
from tenants.rows import Database, offering
from tenants.running import as_tenant
from understudy.actors.session.tenants.helpers import TenantHelpers
from understudy.runtime import (
    ConfigurationError,
    DatabaseBusy,
    DatabaseLimits,
    DatabasePerTenant,
    Secret,
    TenantNotProvisioned,
)

TENANTS = ("acme", "ACME", "third")
PREFIX = fresh_database_name("tenant")


def name_of(tenant: str) -> str:
    return f"{PREFIX}_{TENANTS.index(tenant)}" if tenant in TENANTS else f"{PREFIX}_nobody"


@pytest.fixture
async def shop(postgres_server: PostgresServer, postgres_database: str) -> AsyncIterator[Database]:
    """Each of `TENANTS` has a database with a table."""
    async with rows.database(postgres_server, postgres_database) as shop:
        for tenant in TENANTS:
            await shop.admin.execute(f'CREATE DATABASE "{name_of(tenant)}" OWNER {shop.role}')
            inside = await asyncpg.connect(postgres_server.url(name_of(tenant)))
            await inside.execute(f"CREATE TABLE orders (item text); ALTER TABLE orders OWNER TO {shop.role}")
            await inside.execute("INSERT INTO orders VALUES ($1)", f"of {tenant}")
            await inside.close()
        yield shop
        for tenant in TENANTS:
            await shop.admin.execute(f'DROP DATABASE "{name_of(tenant)}" WITH (FORCE)')


LIMITS = DatabaseLimits(connections=1, acquire_timeout=0.3)


async def test_each_tenant_has_its_database_and_the_least_used_pool_makes_way(shop: Database) -> None:
    async with offering(DatabasePerTenant(shop.url, database=name_of, max_databases=2, limits=LIMITS)) as helpers:
        for tenant in (*TENANTS, *TENANTS):
            with as_tenant(helpers, tenant) as context:
                async with context.connection() as connection:
                    assert await connection.fetchval("SELECT item FROM orders") == f"of {tenant}"
                    assert await connection.fetchval("SELECT current_setting('app.principal')") == "ada"
            assert helpers.stats()["database_pools"] <= 2
        await until_connections(shop, 2)
        with as_tenant(helpers, "acme") as acme, as_tenant(helpers, "ACME") as other:
            # Both places are taken by those who are in the middle of something.
            with as_tenant(helpers, "acme"):
                held = acme.connection()
                await held.__aenter__()
            held_too = other.connection()
            await held_too.__aenter__()
            with as_tenant(helpers, "third") as third:
                with pytest.raises(DatabaseBusy, match="databases of 2 tenants are in use"):
                    await third.connection().__aenter__()
                assert helpers.stats()["database_pools"] == 2
                await held_too.__aexit__(None, None, None)
                async with third.connection() as connection:
                    assert await connection.fetchval("SELECT item FROM orders") == "of third"
            await held.__aexit__(None, None, None)
        with as_tenant(helpers, "nobody") as nobody, pytest.raises(TenantNotProvisioned, match="database is not there"):
            await nobody.connection().__aenter__()
        helpers.forget("third")
        await until_connections(shop, 0)
    await until_connections(shop, 0)


async def until_connections(shop: Database, number: int) -> None:
    """The connections of the app are at most so many."""
    async with asyncio.timeout(PATIENCE):
        while await shop.admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", shop.role) > number:
            await asyncio.sleep(0.02)


async def test_a_tenant_may_have_a_url_of_its_own_which_is_asked_for_anew_when_forgotten(shop: Database) -> None:
    asked: list[str] = []

    def url_of(tenant: str) -> Secret:
        asked.append(tenant)
        return Secret(shop.server.url(name_of(TENANTS[len(asked) - 1]), user=shop.role, password=rows.PASSWORD))

    async with offering(DatabasePerTenant(url_of, limits=LIMITS)) as helpers:

        async def item() -> str:
            with as_tenant(helpers, "acme") as acme:
                async with acme.connection() as connection:
                    return await connection.fetchval("SELECT item FROM orders")

        assert [await item(), await item()] == ["of acme", "of acme"]
        with as_tenant(helpers, "acme") as acme:
            async with acme.connection() as connection:
                helpers.forget("acme")
                # Who is in the middle of something is not disturbed.
                assert await connection.fetchval("SELECT item FROM orders") == "of acme"
                assert await item() == "of ACME"
        assert asked == ["acme", "acme"]
        with as_tenant(helpers, "acme", "bob") as bob:
            async with bob.connection() as connection:
                assert await connection.fetchval("SELECT current_setting('app.principal')") == "bob"


def test_names_are_checked_and_nobodys_else() -> None:
    database = DatabasePerTenant("postgresql://a:s3cret@localhost")
    assert database.database_of("acme") != database.database_of("ACME")
    with pytest.raises(ConfigurationError):
        DatabasePerTenant("postgresql://localhost", database=lambda _: "postgres").database_of("acme")
    with pytest.raises(ConfigurationError, match="max_databases is 0"):
        DatabasePerTenant("postgresql://localhost", max_databases=0)
    assert "s3cret" not in repr(vars(database))


async def test_without_a_runtime_there_is_none() -> None:
    async with TenantHelpers(database=DatabasePerTenant("postgresql://localhost")) as helpers:
        assert helpers.stats()["database_pools"] == 0
