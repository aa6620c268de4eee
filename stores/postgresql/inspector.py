"""`PostgresInspector`: what is in PostgreSQL of a store's tables, without changing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from ..inspection import Layout
from .connection import Connection, Failed, connect
from .durability import durability_warnings
from .schema import SCHEMA_VERSION, TABLES, check_rights, find_version, quoted, script
from .settings import PostgresSettings

__all__ = ["PostgresInspector"]

_COUNTING = 300.0
"""Seconds for a look at all rows."""


class PostgresInspector:
    """An `Inspector` of a schema. Made by `reach`."""

    def __init__(self, connection: Connection, settings: PostgresSettings) -> None:
        self._connection = connection
        self._settings = settings

    @classmethod
    async def reach(cls, url: str, *, timeout: float) -> Self:
        """Connect. Raises as `PostgresStore.from_url`."""
        settings = PostgresSettings.from_url(url)
        return cls(await _connected(settings, timeout), settings)

    async def look(self) -> Layout:
        """See `Inspector.look`."""
        settings = self._settings
        try:
            found = await find_version(self._connection, settings)
            version = None if found is None else found[0]
            steps: list[str] = []
            if version is None:
                [(schema,)] = await self._connection.fetch(
                    "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", settings.schema, writing=False
                )
                steps = [] if schema else [f"CREATE SCHEMA {quoted(settings.schema)}"]
            else:
                await check_rights(self._connection, settings)
            if version != SCHEMA_VERSION:
                steps += script(settings.schema, version=version or 0)
            warnings = await durability_warnings(self._connection, settings)
        except Failed as failed:
            raise failed.failure.error() from failed
        return Layout(
            f"PostgreSQL schema {settings.schema} at {settings.where}",
            version,
            SCHEMA_VERSION,
            () if version is None else tuple(f"table {settings.schema}.{table}" for table in TABLES),
            tuple(" ".join(step.split()) for step in steps),
            warnings,
        )

    async def sizes(self) -> Mapping[str, int]:
        """See `Inspector.sizes`."""
        name = quoted(self._settings.schema)
        # A connection of its own: this may take longer than any statement of a store.
        connection = await _connected(self._settings, _COUNTING)
        try:
            if await find_version(connection, self._settings) is None:
                return {}
            [row] = await connection.fetch(
                f"SELECT (SELECT coalesce(sum(octet_length(snapshot)), 0)::int8 FROM {name}.records),"
                f" (SELECT sum(pg_total_relation_size(format('%I.%I', $1::text, t)::regclass))::int8"
                " FROM unnest($2::text[]) AS t),"
                f" (SELECT count(*) FROM {name}.streams), (SELECT count(*) FROM {name}.events),"
                f" (SELECT coalesce(sum(bytes), 0)::int8 FROM {name}.streams)",
                self._settings.schema,
                TABLES,
                writing=False,
            )
        except Failed as failed:
            raise failed.failure.error() from failed
        finally:
            await connection.close()
        return dict(zip(("snapshot_bytes", "stored_bytes", "streams", "events", "event_bytes"), row, strict=True))

    async def aclose(self) -> None:
        """See `Inspector.aclose`."""
        await self._connection.close()


async def _connected(settings: PostgresSettings, timeout: float) -> Connection:
    try:
        return await connect(settings, name="understudy store inspector", timeout=timeout)
    except Failed as failed:
        raise failed.failure.error() from failed
