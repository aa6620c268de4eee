"""A database whose tables keep tenants apart in the three ways, as its operator would make it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from support.postgres import PostgresServer, fresh_database_name
from understudy.actors.session.tenants.helpers import TenantHelpers

PASSWORD = "app's own"


@dataclass
class Database:
    """`admin` is the superuser's connection to it, `role` the one that the app connects as."""

    server: PostgresServer
    name: str
    admin: asyncpg.Connection
    role: str

    @property
    def url(self) -> str:
        """As the app connects."""
        return self.server.url(self.name, user=self.role, password=PASSWORD)

    async def make_orders(self) -> None:
        """A table with row-level security, that belongs to the superuser."""
        await self.admin.execute(f"""
            CREATE TABLE orders (tenant text NOT NULL DEFAULT current_setting('app.tenant'), item text);
            ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON orders USING (tenant = current_setting('app.tenant', true));
            CREATE TABLE notes (
              tenant text NOT NULL DEFAULT current_setting('app.tenant'),
              principal text NOT NULL DEFAULT current_setting('app.principal'), text text);
            ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON notes USING (
              tenant = current_setting('app.tenant', true) AND principal = current_setting('app.principal', true));
            GRANT SELECT, INSERT, UPDATE, DELETE ON orders, notes TO {self.role};
        """)


@asynccontextmanager
async def database(server: PostgresServer, name: str, *, attributes: str = "") -> AsyncGenerator[Database]:
    """The database `name` of `server`, and a role for an app."""
    admin = await asyncpg.connect(server.url(name))
    role = fresh_database_name("app")
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}' {attributes}")
    try:
        yield Database(server, name, admin, role)
    finally:
        if admin.is_closed():
            admin = await asyncpg.connect(server.url(name))
        await admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await admin.close()


def offering(database: Any) -> TenantHelpers:
    return TenantHelpers(database=database)
