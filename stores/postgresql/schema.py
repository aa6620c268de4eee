"""The tables: made on first use, one step for each version, by one node at a time."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from ..errors import StoreCorrupt, StoreVersionError
from .connection import Connection, Failed
from .errors import Failure, PostgresRefused
from .settings import PostgresSettings

__all__ = ["SCHEMA_VERSION", "TABLES", "Found", "check_rights", "find_version", "open_schema", "quoted", "script"]

SCHEMA_VERSION = 1
"""Of the tables below. Those of a lower one are brought to it, those of a higher one refused."""

_LOCK = 0x55_53_54_59
"""Key of the advisory lock under which tables are made: `USTY`."""

_FORWARD: dict[int, tuple[str, ...]] = {
    1: (
        """CREATE TABLE {schema}.meta (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            version int NOT NULL,
            identity text NOT NULL,
            pinged float8 NOT NULL DEFAULT 0
        )""",
        """CREATE TABLE {schema}.records (
            kind text COLLATE "C" NOT NULL,
            id text COLLATE "C" NOT NULL,
            tenant text COLLATE "C" NOT NULL,
            epoch int8 NOT NULL,
            version int8 NOT NULL,
            owner text COLLATE "C" NOT NULL,
            created float8 NOT NULL,
            updated float8 NOT NULL,
            expires float8 NOT NULL,
            sweep float8 NOT NULL,
            snapshot bytea NOT NULL,
            PRIMARY KEY (kind, id)
        ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)""",
        # An entry of an index has at most 2.7 KB, a tenant up to 4: its beginning finds it.
        "CREATE INDEX records_by_tenant ON {schema}.records (left(tenant, 200), kind, id)",
        "CREATE INDEX records_by_sweep ON {schema}.records (sweep)",
        """CREATE TABLE {schema}.streams (
            number int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text COLLATE "C" NOT NULL,
            id text COLLATE "C" NOT NULL,
            stream text COLLATE "C" NOT NULL,
            head bytea NOT NULL,
            last int8 NOT NULL,
            oldest int8 NOT NULL,
            writer text COLLATE "C" NOT NULL,
            ended boolean NOT NULL,
            appended float8 NOT NULL,
            sweep float8 NOT NULL,
            bytes int8 NOT NULL,
            UNIQUE (kind, id, stream)
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)""",
        "CREATE INDEX streams_by_sweep ON {schema}.streams (sweep)",
        """CREATE TABLE {schema}.events (
            stream int8 NOT NULL,
            number int8 NOT NULL,
            event bytea NOT NULL,
            PRIMARY KEY (stream, number)
        ) WITH (autovacuum_vacuum_scale_factor = 0.05)""",
        # What is encrypted, or compressed once, does not get smaller: spare the attempt.
        "ALTER TABLE {schema}.events ALTER COLUMN event SET STORAGE EXTERNAL",
    ),
}

TABLES = ("meta", "records", "streams", "events")


class Found(NamedTuple):
    """The tables as they are now."""

    identity: str
    """What tells them from others, made up when they were made."""
    made: bool
    """Whether they were made, or brought forward, just now."""


def quoted(name: str) -> str:
    """`name` as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def script(schema: str, *, version: int = 0, identity: str | None = None) -> list[str]:
    """What makes the tables in a schema that is there, or brings those of `version` forward."""
    name = quoted(schema)
    steps = [step.format(schema=name) for n in sorted(_FORWARD) if n > version for step in _FORWARD[n]]
    if version == 0:
        identity = identity or secrets.token_hex(16)
        return [*steps, f"INSERT INTO {name}.meta (version, identity) VALUES ({SCHEMA_VERSION}, '{identity}')"]
    return [*steps, f"UPDATE {name}.meta SET version = {SCHEMA_VERSION}"]


async def open_schema(connection: Connection, settings: PostgresSettings) -> Found:
    """Find the tables, make them, or bring them forward.

    Raises:
        StoreVersionError: They are of a newer understudy. They are left as they are.
        StoreCorrupt: There are others of their names.
        Failed: The role may not use, or not make them; or as `Connection.fetch`.
    """
    found = await find_version(connection, settings)
    if found is not None and found[0] == SCHEMA_VERSION:
        await check_rights(connection, settings)
        return Found(found[1], False)
    try:
        await connection.run("BEGIN", f"SELECT pg_advisory_xact_lock({_LOCK})")
        try:
            found = await find_version(connection, settings)
            if found is None or found[0] < SCHEMA_VERSION:
                await _make(connection, settings, 0 if found is None else found[0])
            await connection.run("COMMIT")
        except BaseException:
            if not connection.closed:
                await connection.run("ROLLBACK")
            raise
    except Failed as failed:
        raise _explained(failed, settings) from failed
    found = await find_version(connection, settings)
    if found is None:
        raise StoreCorrupt(f"the tables in schema {settings.schema!r} of {settings.where} are gone again")
    return Found(found[1], True)


async def find_version(connection: Connection, settings: PostgresSettings) -> tuple[int, str] | None:
    """Version and identity of the tables; None if there are none. Raises as `open_schema`."""
    name = quoted(settings.schema)
    [(there,)] = await connection.fetch(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = 'meta')",
        settings.schema,
        writing=False,
    )
    if not there:
        return None
    try:
        rows = await connection.fetch(f"SELECT version, identity FROM {name}.meta", writing=False)
    except Failed as failed:
        if "(42703)" in failed.failure.message:
            raise _other_tables(settings, "meta") from failed
        raise
    if len(rows) != 1:
        raise StoreCorrupt(
            f"table {settings.schema}.meta of {settings.where} has {len(rows)} rows instead of one; restore it"
        )
    version, identity = rows[0]
    if version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"the tables in schema {settings.schema!r} of {settings.where} have version {version}, and this "
            f"understudy knows {SCHEMA_VERSION}; upgrade it, or name another ?schema="
        )
    return version, identity


async def _make(connection: Connection, settings: PostgresSettings, version: int) -> None:
    [(there,)] = await connection.fetch(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", settings.schema, writing=False
    )
    if not there:
        await connection.run(f"CREATE SCHEMA {quoted(settings.schema)}")
    await connection.run(*script(settings.schema, version=version))


async def check_rights(connection: Connection, settings: PostgresSettings) -> None:
    """
    Raises:
        Failed: The role lacks a right on one of the tables, which it names.
    """
    rows = await connection.fetch(
        "SELECT t.name, p.name FROM unnest($2::text[]) AS t(name), unnest($3::text[]) AS p(name)"
        " WHERE NOT has_table_privilege(format('%I.%I', $1::text, t.name), p.name) LIMIT 1",
        settings.schema,
        TABLES,
        ("SELECT", "INSERT", "UPDATE", "DELETE"),
        writing=False,
    )
    for table, right in rows:
        raise _refused(
            f"the role has no right to {right} on table {settings.schema}.{table} of {settings.where}; let its owner "
            f"run: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {quoted(settings.schema)} TO the role"
        )


def _explained(failed: Failed, settings: PostgresSettings) -> Exception:
    """What went wrong with making the tables, as far as it is about that."""
    message = failed.failure.message
    if "(42501)" in message:
        return _refused(
            f"there is no store in schema {settings.schema!r} of {settings.where}, and the role may not make one; let "
            f"somebody who may run: CREATE SCHEMA {quoted(settings.schema)} AUTHORIZATION the role"
        )
    if "(42P07)" in message:
        return _other_tables(settings, "one of " + ", ".join(TABLES[1:]))
    return failed


def _other_tables(settings: PostgresSettings, table: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"schema {settings.schema!r} of {settings.where} has a table {table} that is not understudy's; name another "
        "?schema="
    )


def _refused(message: str) -> Failed:
    return Failed(Failure(PostgresRefused, message))
