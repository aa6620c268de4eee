"""What `PostgresStore` says when it cannot be opened, or should not be trusted with what it will acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from support.patience import PATIENCE
from support.ports import free_port
from support.postgres import PASSWORD, PgBouncer, PostgresServer, fresh_database_name, postgres_url
from support.serving import serving
from understudy.stores import (
    Address,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    StoreURLError,
    StoreVersionError,
    open_store,
)
from understudy.stores.postgresql.errors import PostgresReadOnly, PostgresRefused, PostgresUnavailable
from understudy.stores.postgresql.settings import PostgresSettings
from understudy.stores.postgresql.store import PostgresStore

SECRET = "s3cr3t/'@"


@asynccontextmanager
async def admin(server: PostgresServer, database: str = "postgres") -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url(database))
    try:
        yield connection
    finally:
        await connection.close()


async def made_role(server: PostgresServer, options: str = "") -> str:
    role = fresh_database_name("role")
    quoted = SECRET.replace("'", "''")
    async with admin(server) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{quoted}' {options}")
    return role


async def refusal(url: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await open_store(url)
    assert PASSWORD not in str(caught.value)
    assert SECRET not in str(caught.value)
    return caught.value


async def test_a_wrong_password_is_named_and_not_shown(postgres_server: PostgresServer) -> None:
    error = await refusal(postgres_server.url(password=SECRET))
    assert isinstance(error, PostgresRefused)
    assert "password authentication failed" in str(error)
    assert "PGPASSWORD" in str(error)
    assert not error.outcome_unknown


async def test_a_wrong_password_is_named_through_a_pooler_too(pgbouncer: PgBouncer) -> None:
    error = await refusal(pgbouncer.url(password=SECRET))
    assert isinstance(error, PostgresRefused)
    assert "authentication failed" in str(error)
    assert "PGPASSWORD" in str(error)


async def test_a_missing_database_is_named(postgres_server: PostgresServer) -> None:
    error = await refusal(postgres_server.url("nowhere"))
    assert isinstance(error, PostgresRefused)
    assert '"nowhere" does not exist' in str(error)
    assert "createdb" in str(error)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    error = await refusal(postgres_url(free_port(), "x", user="u", password=SECRET))
    assert isinstance(error, PostgresUnavailable)
    assert not isinstance(error, PostgresRefused)
    assert "cannot be reached" in str(error)
    assert "start it, or correct host and port" in str(error)


async def test_a_socket_that_is_not_there_is_told(tmp_path: Path) -> None:
    error = await refusal(f"postgresql://u@/x?host={tmp_path}")
    assert "name the directory of its socket" in str(error)


async def test_something_else_than_postgresql_is_unavailable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with serving(hang_up) as port:
        assert isinstance(await refusal(postgres_url(port, "x", user="u", password=SECRET)), PostgresUnavailable)


async def test_a_server_that_says_nothing_costs_the_timeout() -> None:
    left = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    async with serving(say_nothing) as port:
        settings = PostgresSettings.from_url(postgres_url(port, "x", user="u", password=SECRET))
        with pytest.raises(PostgresUnavailable, match=r"did not answer within 0\.2 s"):
            await PostgresStore.open(settings, timeout=0.2)
        async with asyncio.timeout(PATIENCE):
            await left.wait()


async def test_tls_that_the_server_does_not_speak_is_named(postgres_server: PostgresServer) -> None:
    error = await refusal(f"{postgres_server.url()}?sslmode=require")
    assert isinstance(error, PostgresRefused)
    assert "does not speak TLS" in str(error)


async def test_a_certificate_file_that_is_not_there_is_named(postgres_server: PostgresServer) -> None:
    other = Path(__file__)
    for options, says in (
        (
            "sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
            "sslrootcert '/nowhere/ca.pem' cannot be read: No such file",
        ),
        ("sslmode=require&sslcert=/nowhere/my.pem", "sslcert '/nowhere/my.pem' cannot be read: No such file"),
        (f"sslmode=require&sslcert={other}&sslkey={other}", "look at sslmode, sslrootcert, sslcert and sslkey"),
    ):
        error = await refusal(f"{postgres_server.url()}?{options}")
        assert isinstance(error, PostgresRefused)
        assert says in str(error)


async def test_a_role_that_may_not_make_the_tables_is_told_what_to_run(postgres_server: PostgresServer) -> None:
    role, schema = await made_role(postgres_server), fresh_database_name()
    url = f"{postgres_server.url(user=role, password=SECRET)}?schema={schema}"
    error = await refusal(url)
    assert isinstance(error, PostgresRefused)
    assert f'CREATE SCHEMA "{schema}" AUTHORIZATION' in str(error)
    async with admin(postgres_server) as connection:
        await connection.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION {role}')
    store = await open_store(url)
    await store.ping()
    await store.aclose()


async def test_a_role_that_may_not_use_the_tables_is_told_what_to_run(postgres_server: PostgresServer) -> None:
    role, schema = await made_role(postgres_server), fresh_database_name()
    await (await open_store(f"{postgres_server.url()}?schema={schema}")).aclose()
    url = f"{postgres_server.url(user=role, password=SECRET)}?schema={schema}"
    async with admin(postgres_server) as connection:
        error = await refusal(url)
        assert isinstance(error, PostgresRefused)
        assert "needs USAGE on the schema" in str(error)
        await connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        assert isinstance(await refusal(url), PostgresRefused)
        await connection.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO {role}")
        error = await refusal(url)
        assert "no right to DELETE" in str(error)
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in str(error)
        await connection.execute(f"GRANT DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
    store = await open_store(url)
    address = Address.new("session")
    await store.create(address, tenant="", owner="", snapshot=b"", ttl=60.0)
    await store.claim(address, owner="")
    log = store.events  # type: ignore[attr-defined]
    await log.append(address, "stream", 1, [b"one"], head=b"", writer="w")
    await log.drop_all(address)
    assert await store.delete(address)
    await store.aclose()


async def test_a_server_that_is_read_only_is_named(postgres_server: PostgresServer) -> None:
    role = await made_role(postgres_server, "SUPERUSER")
    async with admin(postgres_server) as connection:
        await connection.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    error = await refusal(postgres_server.url(user=role, password=SECRET))
    assert isinstance(error, PostgresReadOnly)
    assert "default_transaction_read_only" in str(error)


async def test_a_database_that_is_not_in_utf_8_is_refused(postgres_server: PostgresServer) -> None:
    name = fresh_database_name()
    async with admin(postgres_server) as connection:
        await connection.execute(f"CREATE DATABASE {name} ENCODING SQL_ASCII TEMPLATE template0")
        try:
            error = await refusal(postgres_server.url(name))
            assert isinstance(error, PostgresRefused)
            assert "createdb --encoding=UTF8" in str(error)
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_tables_of_a_newer_version_are_left_as_they_are(postgres_server: PostgresServer) -> None:
    schema = fresh_database_name()
    url = f"{postgres_server.url()}?schema={schema}"
    store = await open_store(url)
    async with admin(postgres_server) as connection:
        await connection.execute(f"UPDATE {schema}.meta SET version = 99")
        error = await refusal(url)
        assert isinstance(error, StoreVersionError)
        assert "version 99" in str(error)
        # A node that was there before says so, and is not ready any more.
        with pytest.raises(StoreUnavailable, match="version 99"):
            await store.ping()
        assert await connection.fetchval(f"SELECT version FROM {schema}.meta") == 99
    await store.aclose()


@pytest.mark.parametrize(
    "tables",
    ["CREATE TABLE {}.meta (name text)", "CREATE TABLE {}.records (name text)", "CREATE VIEW {}.meta AS SELECT 1 AS x"],
)
async def test_tables_of_others_are_left_as_they_are(postgres_server: PostgresServer, tables: str) -> None:
    schema = fresh_database_name()
    async with admin(postgres_server) as connection:
        await connection.execute(f"CREATE SCHEMA {schema}; {tables.format(schema)}")
        error = await refusal(f"{postgres_server.url()}?schema={schema}")
        assert isinstance(error, StoreCorrupt)
        assert "not understudy's" in str(error)
        assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'streams_by_sweep' AND "
            "relnamespace = $1::regnamespace", schema) == 0  # fmt: skip


async def test_a_meta_table_without_its_row_is_corrupt(postgres_server: PostgresServer) -> None:
    schema = fresh_database_name()
    url = f"{postgres_server.url()}?schema={schema}"
    await (await open_store(url)).aclose()
    async with admin(postgres_server) as connection:
        await connection.execute(f"DELETE FROM {schema}.meta")
    assert isinstance(await refusal(url), StoreCorrupt)


async def test_many_nodes_that_start_on_an_empty_database_make_the_tables_once(
    postgres_server: PostgresServer, pgbouncer: PgBouncer
) -> None:
    schema = fresh_database_name()
    urls = [f"{server.url()}?schema={schema}" for server in (postgres_server, pgbouncer)] * 4
    stores = await asyncio.gather(*(PostgresStore.from_url(url) for url in urls))
    assert len({store.identity for store in stores}) == 1
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_a_role_with_one_connection_is_enough_and_the_next_node_is_told(postgres_server: PostgresServer) -> None:
    role = await made_role(postgres_server, "CONNECTION LIMIT 2")
    schema = fresh_database_name()
    async with admin(postgres_server) as connection:
        await connection.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {role}")
    url = f"{postgres_server.url(user=role, password=SECRET)}?schema={schema}"
    store = await PostgresStore.from_url(url)
    other = await PostgresStore.from_url(f"{url}&connections=1")
    error = await refusal(url)
    assert isinstance(error, PostgresUnavailable)
    assert "too many connections" in str(error)
    assert "max_connections" in str(error)
    addresses = [Address.new("session") for _ in range(50)]

    async def live(address: Address) -> None:
        await store.create(address, tenant="", owner="", snapshot=b"x" * 300_000, ttl=60.0)
        await store.touch(address, epoch=1, ttl=60.0)
        await store.delete(address)

    await asyncio.gather(*(live(address) for address in addresses))
    assert store.stats()["connections"] == 1
    assert store.stats()["write_failed"] == 0
    await store.aclose()
    await other.aclose()


@pytest.mark.parametrize(
    ("setting", "says"),
    [("off", "synchronous_commit = off: what was acknowledged in the last"), ("local", None), ("on", None)],
)
async def test_a_setting_that_loses_what_was_acknowledged_is_said(
    postgres_server: PostgresServer, setting: str, says: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    role = await made_role(postgres_server, "SUPERUSER")
    async with admin(postgres_server) as connection:
        await connection.execute(f"ALTER ROLE {role} SET synchronous_commit = {setting}")
    url = f"{postgres_server.url(user=role, password=SECRET)}?schema={fresh_database_name()}"
    store = await PostgresStore.from_url(url)
    about = [warning for warning in store.warnings if "synchronous_commit" in warning]
    assert [says is not None and says in warning for warning in about] == [True] * (says is not None)
    assert all(warning in caplog.text for warning in store.warnings)
    assert SECRET not in caplog.text
    # The shared server is made for tests.
    assert any("fsync = off" in warning for warning in store.warnings)
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u:s3cr3t@h:port/x", "no number from 1 to 65535"),
        ("postgresql://u:s3cr3t@h:0/x", "no number from 1 to 65535"),
        ("postgresql://u:s3cr3t/x@h/y", "one / after the host"),
        ("postgresql://u:s3cr3t#x@h/y", "percent-encode"),
        ("postgresql://u:s3cr3t@h ost/y", "percent-encode"),
        ("postgresql://u:s3cr3t@-h/y", "names no host"),
        ("postgresql://u:s3cr3t%00@h/y", "contains a NUL"),
        ("postgresql://u:s3cr3t%ff@h/y", "no UTF-8"),
        ("postgresql://h/y?pool=3", "unknown option 'pool'"),
        ("postgresql://h/y?password=s3cr3t", "unknown option 'password'"),
        ("postgresql://h/y?schema=a&schema=b", "given twice"),
        ("postgresql://h/y?schema=", "is empty"),
        ("postgresql://h/y?schema=pg_mine", "not with 'pg_'"),
        ("postgresql://h/y?schema=a%22b", "must be at most 63 letters"),
        ("postgresql://h/y?connections=0", "must be 1 to 100"),
        ("postgresql://h/y?connections=many", "must be a number"),
        ("postgresql://h/y?sslmode=on", "must be one of disable"),
        ("postgresql://h/y?target_session_attrs=standby", "the store writes"),
        ("postgresql://h/y?host=/run", "give it once"),
        ("postgresql:///y?host=run", "starts with /"),
        ("postgresql://" + ",".join("h" * 65) + "/y", "at most 64"),
    ],
)
async def test_a_url_that_cannot_be_is_refused_without_its_secrets(url: str, says: str) -> None:
    with pytest.raises(StoreURLError, match=says) as caught:
        await open_store(url)
    assert "s3cr3t" not in str(caught.value)


def test_a_url_says_where_and_how() -> None:
    settings = PostgresSettings.from_url(
        "postgresql://me%40home:p%2Fw@one:1234,two,[::1]:7/my%20db?sslmode=verify-full&sslrootcert=/ca.pem&schema=S"
        "&connections=9&target_session_attrs=primary"
    )
    assert settings == PostgresSettings(
        hosts=(("one", 1234), ("two", 5432), ("::1", 7)),
        user="me@home",
        password="p/w",
        database="my db",
        tls=(("sslmode", "verify-full"), ("sslrootcert", "/ca.pem")),
        target_session_attrs="primary",
        schema="S",
        connections=9,
    )
    assert "p/w" not in repr(settings)
    assert "p/w" not in settings.where
    assert PostgresSettings.from_url("postgres://") == PostgresSettings()
    assert PostgresSettings.from_url("postgres:///x?host=/run/pg").hosts == (("/run/pg", 5432),)
