"""The PostgreSQL and the PgBouncer that tests run against are real, and behave as tests rely on."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from support.postgres import PgBouncer, PostgresServer, fresh_database_name


async def test_each_test_has_a_database_of_its_own(postgres_url: str, postgres_database: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT current_database()") == postgres_database
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.execute("CREATE TABLE left_behind ()")
    await connection.close()


async def test_a_wrong_password_is_refused(postgres_server: PostgresServer, pgbouncer: PgBouncer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_server.url(password="wrong"))
    with pytest.raises(asyncpg.ProtocolViolationError, match="authentication failed"):
        await asyncpg.connect(pgbouncer.url(password="wrong"))


async def test_pgbouncer_takes_roles_that_tests_make_and_shares_connections(
    postgres_url: str, postgres_database: str, pgbouncer: PgBouncer
) -> None:
    role = fresh_database_name("role")
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'of its own'")
    url = pgbouncer.url(postgres_database, user=role, password="of its own")
    clients = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(8)]
    assert {await client.fetchval("SELECT current_user") for client in clients} == {role}
    # More clients than there are connections, so they meet those of each other: the mode is as it says.
    processes = [await client.fetchval("SELECT pg_backend_pid()") for client in clients for _ in range(3)]
    assert len(set(processes)) <= 4
    for client in clients:
        await client.close()
    await admin.execute(f"REVOKE ALL ON SCHEMA public FROM {role}")
    await admin.close()


async def test_a_private_server_keeps_what_was_committed_over_a_crash(
    postgres_servers: Callable[..., PostgresServer],
) -> None:
    with postgres_servers() as server:
        connection = await asyncpg.connect(server.url())
        await connection.execute("CREATE TABLE kept (number int)")
        await connection.execute("INSERT INTO kept VALUES (7)")
        server.freeze()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.fetchval("SELECT 1"), 0.2)
        server.thaw()
        connection.terminate()
        server.crash()
        server.start()
        connection = await asyncpg.connect(server.url())
        assert await connection.fetchval("SELECT number FROM kept") == 7
        await connection.close()
