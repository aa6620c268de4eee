"""Tables of every version that was ever made: each opens, with what it holds."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from support.postgres import PostgresServer, fresh_database_name
from understudy.stores import Address, LoggedStream, Record
from understudy.stores.postgresql import schema as tables
from understudy.stores.postgresql.store import PostgresStore

GOLDEN = Path(__file__).parent / "golden"
"""One script for each version, as that version made its tables, and with one record and one stream."""

VERSIONS = range(1, tables.SCHEMA_VERSION + 1)


def _golden(version: int, schema: str) -> str:
    script = (GOLDEN / f"postgresql-{version}.sql").read_text()
    return script.replace("understudy.", f"{schema}.").replace("SCHEMA understudy", f"SCHEMA {schema}")


@pytest.mark.parametrize("version", VERSIONS)
async def test_tables_of_an_earlier_version_open_with_what_they_hold(
    postgres_server: PostgresServer, version: int
) -> None:
    schema = fresh_database_name()
    connection = await asyncpg.connect(postgres_server.url())
    script = (GOLDEN / f"postgresql-{version}.sql").read_text()
    await connection.execute(
        script.replace("understudy.", f"{schema}.").replace("SCHEMA understudy", f"SCHEMA {schema}")
    )
    store = await PostgresStore.from_url(f"{postgres_server.url()}?schema={schema}", clock=lambda: 1_800_000_200.0)
    assert store.identity == "PostgreSQL tables 00112233445566778899aabbccddeeff"
    address = Address("session", "golden")
    assert await store.load(address) == Record(
        address, "acme", 3, 7, "node-2", 1_800_000_000.25, 1_800_000_100.5, 1_800_003_700.5, b"\0snapshot\xff"
    )
    assert await store.events.read(address, "call-1") == LoggedStream(b"head", 2, (b"two", b"three"), 3, 2, "w/1", True)
    assert (await store.claim(address, owner="node-3")).epoch == 4
    await store.save(address, epoch=4, version=8, snapshot=b"new", ttl=60.0)
    assert await connection.fetchval(f"SELECT version FROM {schema}.meta") == tables.SCHEMA_VERSION
    await store.aclose()
    await connection.close()


async def test_the_script_of_the_newest_version_is_what_is_made_now(postgres_server: PostgresServer) -> None:
    """If this fails, the tables were changed: raise SCHEMA_VERSION, add its step, and write its script beside these."""
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns"
        " WHERE table_schema = $1 ORDER BY table_name, ordinal_position"
    )
    indexes = "SELECT replace(indexdef, $1 || '.', '') FROM pg_indexes WHERE schemaname = $1 ORDER BY 1"
    old, new = fresh_database_name(), fresh_database_name()
    connection = await asyncpg.connect(postgres_server.url())
    await connection.execute(_golden(tables.SCHEMA_VERSION, old))
    await connection.execute(f"CREATE SCHEMA {new};" + ";".join(tables.script(new)))
    for query in (columns, indexes):
        assert await connection.fetch(query, old) == await connection.fetch(query, new)
    await connection.close()


async def test_tables_are_brought_forward_one_version_after_another_by_one_node(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{postgres_server.url()}?schema={fresh_database_name()}"
    old = await PostgresStore.from_url(url)
    address = Address.new("session")
    await old.create(address, tenant="acme", owner="node-1", snapshot=b"one", ttl=1000.0)
    monkeypatch.setattr(tables, "SCHEMA_VERSION", 3)
    monkeypatch.setitem(tables._FORWARD, 2, ("ALTER TABLE {schema}.records ADD COLUMN two int",))
    monkeypatch.setitem(tables._FORWARD, 3, ("ALTER TABLE {schema}.records RENAME COLUMN two TO three",))
    new = await PostgresStore.from_url(url)
    again = await PostgresStore.from_url(url)
    assert new.identity == again.identity == old.identity
    [(three,)] = await next(iter(again._lanes._connections)).fetch(
        f"SELECT three FROM {tables.quoted(url.rpartition('=')[2])}.records", writing=False
    )
    assert three is None
    for store in (old, new, again):
        record = await store.load(address)
        assert record is not None
        assert record.snapshot == b"one"
        await store.aclose()
