# ruff: noqa: PT012
"""Rows of tenants on connections that they share: nothing of one is left for the next."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import asyncpg
import pytest
from support.postgres import PASSWORD as ADMIN_PASSWORD
from support.postgres import SUPERUSER, PgBouncer, PostgresServer
from tenants import rows
from tenants.rows import Database, offering
from tenants.running import as_tenant
from understudy.actors.session.tenants.errors import NotOffered
from understudy.actors.session.tenants.helpers import TenantHelpers
from understudy.runtime import (
    ConfigurationError,
    DatabaseBusy,
    DatabaseError,
    DatabaseLimits,
    DatabaseMisconfigured,
    DatabaseUnavailable,
    RowLevelSecurity,
    Secret,
    StatementRefused,
    TenantConnection,
    TenantContext,
    WrongTenant,
)
from understudy.runtime.databases.statements import checked_statement, identifier


@pytest.fixture
async def shop(postgres_server: PostgresServer, postgres_database: str) -> AsyncIterator[Database]:
    async with rows.database(postgres_server, postgres_database) as shop:
        await shop.make_orders()
        yield shop


ONE = DatabaseLimits(connections=1, acquire_timeout=0.3, statement_timeout=5.0)


@pytest.fixture(params=["direct", "pgbouncer"])
async def helpers(request: pytest.FixtureRequest, shop: Database) -> AsyncIterator[TenantHelpers]:
    """All tenants share one connection. By way of PgBouncer it is ours only while a transaction lasts."""
    url = shop.url
    if request.param == "pgbouncer":
        pgbouncer: PgBouncer = request.getfixturevalue("pgbouncer")
        url = pgbouncer.url(shop.name, user=shop.role, password=rows.PASSWORD)
    async with offering(RowLevelSecurity(url, limits=ONE)) as helpers:
        yield helpers


async def items(connection: TenantConnection) -> list[str]:
    return [row["item"] for row in await connection.fetch("SELECT item FROM orders ORDER BY item")]


async def test_each_tenant_sees_and_changes_its_own_rows(helpers: TenantHelpers) -> None:
    tenants = ["acme", "evil", "it's", 'back\\slash "quoted" $1 %s', "ünïcode 日本", "'; DROP TABLE orders; --"]
    for tenant in tenants:
        with as_tenant(helpers, tenant) as context:
            async with context.connection() as connection:
                assert await connection.execute("INSERT INTO orders (item) VALUES ($1)", f"of {tenant}") == "INSERT 0 1"
    for tenant in tenants:
        with as_tenant(helpers, tenant) as context:
            async with context.connection() as connection:
                assert await items(connection) == [f"of {tenant}"]
                assert await connection.execute("UPDATE orders SET item = item || '!'") == "UPDATE 1"
                assert await connection.execute("DELETE FROM orders WHERE tenant <> $1", tenant) == "DELETE 0"
                row = await connection.fetchrow("SELECT tenant, item FROM orders")
                assert tuple(row) == (tenant, f"of {tenant}!")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with context.connection() as connection:
                    await connection.execute("INSERT INTO orders VALUES ('other', 'poison')")


async def test_a_user_can_have_rows_of_his_own(helpers: TenantHelpers) -> None:
    for user in ("ada", "bob"):
        with as_tenant(helpers, "acme", user) as context:
            async with context.connection() as connection:
                await connection.execute("INSERT INTO notes (text) VALUES ($1)", f"of {user}")
                assert await connection.fetchval("SELECT string_agg(text, ',') FROM notes") == f"of {user}"


async def test_what_fails_is_undone_and_a_part_can_fail_by_itself(helpers: TenantHelpers) -> None:
    with as_tenant(helpers, "acme") as acme:
        with pytest.raises(ZeroDivisionError):
            async with acme.connection() as connection:
                await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                raise ZeroDivisionError
        with pytest.raises(asyncpg.UndefinedTableError):
            async with acme.connection() as connection:
                await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                await connection.fetch("SELECT * FROM nowhere")
        with pytest.raises(DatabaseError, match="a statement had failed in this block"):
            async with acme.connection() as connection:
                await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                with suppress(asyncpg.UndefinedTableError):
                    await connection.fetch("SELECT * FROM nowhere")
        async with acme.connection() as connection:
            await connection.executemany("INSERT INTO orders (item) VALUES ($1)", [("a",), ("b",)])
            with pytest.raises(asyncpg.UndefinedTableError):
                async with connection.transaction():
                    await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                    await connection.fetch("SELECT * FROM nowhere")
            async with connection.transaction():
                await connection.execute("INSERT INTO orders (item) VALUES ('c')")
        async with acme.connection() as connection:
            assert await items(connection) == ["a", "b", "c"]
            assert [row[0] async for row in connection.rows("SELECT item FROM orders ORDER BY 1", prefetch=2)] == [
                "a",
                "b",
                "c",
            ]
    assert helpers.stats()["database_discarded_total"] == 0


LEFT = """
SELECT json_build_object(
  'tenant', coalesce(current_setting('app.tenant', true), ''),
  'other', coalesce(current_setting('app.other', true), ''),
  'path', current_setting('search_path'),
  'memory', current_setting('work_mem'),
  'temporary', (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid)),
  'prepared', (SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%secret%'),
  'cursors', (SELECT count(*) FROM pg_cursors WHERE name LIKE 'mine%'),
  'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
  'listens', (SELECT count(*) FROM pg_listening_channels())
)::text
"""
NOTHING = {
    "tenant": "evil",
    "other": "",
    "path": '"$user", public',
    "memory": "4MB",
    "temporary": 0,
    "prepared": 0,
    "cursors": 0,
    "locks": 0,
    "listens": 0,
}


async def leave_everything(connection: TenantConnection) -> None:
    for statement in (
        "SET app.tenant = 'acme'",
        "SELECT set_config('app.other', 'secret', false)",
        "SET search_path = pg_catalog",
        "SET work_mem = '64MB'",
        "CREATE TEMPORARY TABLE pg_temp.leftover AS SELECT 'secret' AS text",
        "PREPARE mine AS SELECT 'secret'",
        "DECLARE mine CURSOR WITH HOLD FOR SELECT 'secret'",
        "SELECT pg_advisory_lock(42)",
        "LISTEN secrets",
        "SELECT nextval('public.numbers')",
    ):
        await connection.execute(statement)


async def test_nothing_is_left_for_who_comes_next(helpers: TenantHelpers, shop: Database) -> None:
    await shop.admin.execute(f"CREATE SEQUENCE numbers; GRANT USAGE ON numbers TO {shop.role}")
    await shop.admin.execute(f"GRANT TEMPORARY ON DATABASE {shop.name} TO {shop.role}")
    for how in ("committed", "raised", "failed", "cancelled between", "cancelled in a statement"):
        ready = asyncio.Event()
        process = [0, 0]

        async def work(how: str = how, ready: asyncio.Event = ready, process: list[int] = process) -> None:
            with as_tenant(helpers, "acme") as acme:
                async with acme.connection() as connection:
                    await leave_everything(connection)
                    process[0] = await connection.fetchval("SELECT pg_backend_pid()")
                    match how:
                        case "raised":
                            raise ZeroDivisionError
                        case "failed":
                            await connection.execute("SELECT 1 / 0")
                        case "cancelled in a statement":
                            ready.set()
                            await connection.execute("SELECT pg_sleep(60)")
                        case "cancelled between":
                            ready.set()
                            await asyncio.Event().wait()
                        case _:
                            pass

        task = asyncio.get_running_loop().create_task(work())
        if how.startswith("cancelled"):
            await ready.wait()
            await asyncio.sleep(0.1)
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert (outcome is None) == (how == "committed"), outcome
        with as_tenant(helpers, "evil") as evil:
            async with evil.connection() as connection:
                left = await connection.fetchval(LEFT)
                assert json.loads(left) == NOTHING, how
                with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
                    async with connection.transaction():
                        await connection.fetchval("SELECT lastval()")
                assert await items(connection) == []
                process[1] = await connection.fetchval("SELECT pg_backend_pid()")
        if how != "cancelled in a statement":
            # It is the very connection, and none had to be thrown away.
            assert process[0] == process[1], how
            assert helpers.stats()["database_discarded_total"] == 0
        # And the lock is free for others.
        assert await shop.admin.fetchval("SELECT pg_try_advisory_lock(42), pg_advisory_unlock(42)")


async def test_a_connection_is_good_in_its_block_and_its_tenants_calls_alone(helpers: TenantHelpers) -> None:
    with as_tenant(helpers, "acme") as acme:
        async with acme.connection() as connection:
            await connection.execute("INSERT INTO orders (item) VALUES ('mine')")
            with as_tenant(helpers, "evil"):
                for reach in (connection.fetch, connection.execute, connection.fetchval, connection.fetchrow):
                    with pytest.raises(WrongTenant):
                        await reach("SELECT 1")
        with pytest.raises(DatabaseError, match="after the block"):
            await connection.fetch("SELECT 1")
    with as_tenant(helpers, "evil"):
        for context in (acme, TenantContext("acme", "ada")):
            with pytest.raises(WrongTenant):
                context.connection()


REFUSED = [
    "COMMIT",
    "  commit ; SELECT 1",
    "/* a /* b */ c */ -- d\n Rollback",
    "; ; END",
    "abort",
    "BEGIN",
    "start transaction",
    "SAVEPOINT understudy",
    "release understudy",
    "ROLLBACK TO SAVEPOINT understudy",
    "PREPARE  TRANSACTION 'x'",
    "COMMIT AND CHAIN",
    "\ufeffCOMMIT",
]


async def test_the_transaction_cannot_be_left(helpers: TenantHelpers) -> None:
    with as_tenant(helpers, "acme") as acme:
        for statement in REFUSED:
            method = ("execute", "fetch", "fetchrow", "fetchval")[len(statement) % 4]
            with pytest.raises((StatementRefused, asyncpg.PostgresSyntaxError)):
                async with acme.connection() as connection:
                    await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                    await getattr(connection, method)(statement)
        for sneaky in ("SELECT 1; COMMIT", "DO $$ BEGIN COMMIT; END $$"):
            with pytest.raises(asyncpg.PostgresError):
                async with acme.connection() as connection:
                    await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                    await connection.execute(sneaky)
        async with acme.connection() as connection:
            assert await items(connection) == []


def test_statements_that_only_begin_alike_are_taken() -> None:
    for statement in ("SELECT 'commit'", "PREPARE x AS SELECT 1", "commits", "WITH x AS (TABLE y) TABLE x", "", "/* x"):
        assert checked_statement(statement) == statement
    statement: Any = b"COMMIT"
    with pytest.raises(StatementRefused):
        checked_statement(statement)


def test_identifiers_are_quoted_whole_or_refused() -> None:
    assert identifier('a"b; --') == '"a""b; --"'
    for name in ("", "x" * 64, "é" * 32, "a\0b", "\ud800", "pg_x", "public", "information_schema", "postgres", "none"):
        with pytest.raises(ConfigurationError):
            identifier(name)


async def test_a_deferred_constraint_is_told_of_where_the_block_ends(helpers: TenantHelpers, shop: Database) -> None:
    await shop.admin.execute(
        f"CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON once TO {shop.role}"
    )
    with as_tenant(helpers, "acme") as acme:
        with pytest.raises(asyncpg.UniqueViolationError):
            async with acme.connection() as connection:
                await connection.executemany("INSERT INTO once VALUES ($1)", [(1,), (1,)])
        async with acme.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM once") == 0


# Bounds


async def test_at_the_bound_a_call_hears_that_it_is_busy_and_others_are_served(shop: Database) -> None:
    limits = DatabaseLimits(connections=2, connections_of_one=1, waiting=1, acquire_timeout=0.2)
    async with offering(RowLevelSecurity(shop.url, limits=limits)) as helpers:
        with as_tenant(helpers, "noisy") as noisy:

            async def ask() -> None:
                async with noisy.connection():
                    pass

            async with noisy.connection():
                waiting = asyncio.get_running_loop().create_task(ask())
                await asyncio.sleep(0)
                with pytest.raises(DatabaseBusy, match="1 calls of this tenant wait"):
                    await ask()
                with as_tenant(helpers, "other") as other:
                    async with other.connection() as connection:
                        assert await connection.fetchval("SELECT 1") == 1
                with pytest.raises(DatabaseBusy, match=r"became free within 0\.2 s"):
                    await waiting
                assert helpers.stats()["database_busy_total"] == 2
            await ask()
        assert helpers.stats()["database_waiting"] == helpers.stats()["database_connections_in_use"] == 0


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(shop: Database) -> None:
    limits = DatabaseLimits(connections=1, statement_timeout=0.1, idle_timeout=0.2)
    async with offering(RowLevelSecurity(shop.url, limits=limits)) as helpers:
        with as_tenant(helpers, "acme") as acme:
            with pytest.raises(asyncpg.QueryCanceledError):
                async with acme.connection() as connection:
                    await connection.execute("SELECT pg_sleep(30)")
            with pytest.raises(DatabaseUnavailable, match="nothing was committed"):
                async with acme.connection() as connection:
                    await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                    await asyncio.sleep(0.5)
                    await connection.fetch("SELECT 1")
            async with acme.connection() as connection:
                assert await items(connection) == []


async def test_a_server_that_goes_away_is_an_error_and_comes_back(
    postgres_servers: Callable[..., PostgresServer],
) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(postgres_servers())
        shop = await stack.enter_async_context(rows.database(server, "postgres"))
        await shop.make_orders()
        limits = DatabaseLimits(connections=1, connect_timeout=1.0, statement_timeout=1.0)
        helpers = await stack.enter_async_context(offering(RowLevelSecurity(shop.url, limits=limits)))
        with as_tenant(helpers, "acme") as acme:
            with pytest.raises(DatabaseUnavailable, match="nothing was committed"):
                async with acme.connection() as connection:
                    await connection.execute("INSERT INTO orders (item) VALUES ('gone')")
                    server.crash()
                    await connection.fetch("SELECT 1")
            with pytest.raises(DatabaseUnavailable, match="cannot be reached") as caught:
                await acme.connection().__aenter__()
            assert rows.PASSWORD not in str(caught.value)
            server.start()
            with pytest.raises(TimeoutError):
                async with acme.connection() as connection:
                    assert await items(connection) == []
                    server.freeze()
                    try:
                        await connection.fetch("SELECT 1")
                    finally:
                        server.thaw()


# What is looked at before anything is served


async def problems(url: str, **options: Any) -> str:
    with pytest.raises(DatabaseMisconfigured) as caught:
        await RowLevelSecurity(url, **options).check()
    with pytest.raises(DatabaseMisconfigured):
        await offering(RowLevelSecurity(url, **options)).__aenter__()
    assert rows.PASSWORD not in str(caught.value)
    return str(caught.value)


async def test_a_role_that_no_policy_binds_is_refused(shop: Database) -> None:
    await RowLevelSecurity(shop.url).check()
    assert f"role {SUPERUSER} is a superuser" in await problems(shop.server.url(shop.name))
    await shop.admin.execute(f"ALTER ROLE {shop.role} BYPASSRLS")
    assert f"ALTER ROLE {shop.role} NOBYPASSRLS" in await problems(shop.url)
    await shop.admin.execute(f"ALTER ROLE {shop.role} NOBYPASSRLS; GRANT {SUPERUSER} TO {shop.role}")
    assert f"member of {SUPERUSER}, a superuser: REVOKE" in await problems(shop.url)
    await shop.admin.execute(f"REVOKE {SUPERUSER} FROM {shop.role}")
    await RowLevelSecurity(shop.url).check()
    async with offering(RowLevelSecurity(shop.server.url(shop.name), check=False)):
        pass


async def test_tables_and_views_that_show_everything_are_refused_by_name(shop: Database) -> None:
    for make, undo, reason in (
        ("CREATE TABLE extra (n int)", "DROP TABLE extra", "public.extra has no row-level security"),
        (
            "CREATE TABLE extra (n int); ALTER TABLE extra ENABLE ROW LEVEL SECURITY; "
            "ALTER TABLE extra OWNER TO {role}",
            "DROP TABLE extra",
            "ALTER TABLE public.extra FORCE ROW LEVEL SECURITY",
        ),
        ("CREATE VIEW extra AS SELECT * FROM orders", "DROP VIEW extra", "SET (security_invoker = true)"),
        ("CREATE MATERIALIZED VIEW extra AS SELECT * FROM orders", "DROP MATERIALIZED VIEW extra", "materialized view"),
        (
            "CREATE TABLE extra (n int); ALTER TABLE extra ENABLE ROW LEVEL SECURITY; "
            "CREATE POLICY wide ON extra USING (true)",
            "DROP TABLE extra",
            "the policy wide on public.extra lets everybody in",
        ),
        (
            "CREATE TABLE extra (n int) PARTITION BY LIST (n); ALTER TABLE extra ENABLE ROW LEVEL SECURITY; "
            "CREATE TABLE part PARTITION OF extra DEFAULT; GRANT SELECT ON part TO {role}",
            "DROP TABLE extra",
            "public.part has no row-level security",
        ),
    ):
        await shop.admin.execute(make.format(role=shop.role))
        await shop.admin.execute(f"GRANT SELECT ON extra TO {shop.role}")
        assert reason in await problems(shop.url)
        await RowLevelSecurity(shop.url, shared={"public.extra", "public.part"}).check()
        await shop.admin.execute(undo)
    await shop.admin.execute("CREATE TABLE out_of_reach (n int)")
    await shop.admin.execute("CREATE VIEW mine WITH (security_invoker = true) AS SELECT * FROM orders")
    await shop.admin.execute(f"GRANT SELECT ON mine TO {shop.role}")
    await RowLevelSecurity(shop.url).check()
    await shop.admin.execute(f"ALTER ROLE {shop.role} SET app.tenant = 'acme'")
    assert "app.tenant is 'acme' outside of all transactions" in await problems(shop.url)


async def test_what_cannot_be_used_is_refused_without_the_password(shop: Database) -> None:
    for wrong in ("http://x:s3cret@y", "postgresql://a:s3cret@localhost:x/y", "s3cret"):
        with pytest.raises((ConfigurationError, DatabaseUnavailable)) as caught:
            await RowLevelSecurity(wrong).check()
        assert "s3cret" not in str(caught.value)
    with pytest.raises(DatabaseUnavailable, match="InvalidPassword") as refused:
        await RowLevelSecurity(Secret(shop.server.url(shop.name, user=shop.role, password="s3cret"))).check()
    assert "s3cret" not in str(refused.value)
    for name in ("tenant", "App.tenant", "app.tenant; x", ""):
        with pytest.raises(ConfigurationError, match="two words with a dot"):
            RowLevelSecurity(shop.url, tenant_setting=name)
    with pytest.raises(ValueError, match="connections of DatabaseLimits is 0"):
        DatabaseLimits(connections=0)
    assert ADMIN_PASSWORD not in repr(vars(RowLevelSecurity(shop.server.url())))
    async with TenantHelpers() as helpers:
        with as_tenant(helpers, "acme") as acme, pytest.raises(NotOffered, match="RowLevelSecurity"):
            acme.connection()


async def test_many_calls_of_many_tenants_never_meet(helpers: TenantHelpers, shop: Database) -> None:
    limits = DatabaseLimits(connections=3, acquire_timeout=30.0)
    async with offering(RowLevelSecurity(shop.url, limits=limits)) as crowd:

        async def work(number: int) -> None:
            tenant = f"t{number % 7}"
            with as_tenant(crowd, tenant) as context:
                try:
                    async with asyncio.timeout(0.02 if number % 5 == 0 else 30):
                        async with context.connection() as connection:
                            await connection.execute("INSERT INTO orders (item) VALUES ($1)", f"{tenant}/{number}")
                            await connection.execute("SELECT pg_sleep($1)", 0.002 * (number % 4))
                            assert all(item.startswith(f"{tenant}/") for item in await items(connection))
                            if number % 3 == 0:
                                raise ZeroDivisionError
                except (TimeoutError, ZeroDivisionError):
                    pass

        await asyncio.gather(*map(work, range(150)))
    for row in await shop.admin.fetch("SELECT tenant, item FROM orders"):
        assert row["item"].split("/")[0] == row["tenant"]
        assert int(row["item"].split("/")[1]) % 3
