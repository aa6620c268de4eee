"""What runtime/databases/README.md has an operator do in PostgreSQL, for one test."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import understudy.runtime.databases
from understudy.runtime import DatabasePerTenant, SchemaPerTenant
from understudy.runtime.databases.statements import identifier

from support.postgres import PostgresServer, fresh_database_name

GUIDE = (Path(understudy.runtime.databases.__file__).parent / "README.md").read_text()
SECTIONS: dict[str, str] = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", GUIDE, re.M | re.S))
PATTERNS = ("Row-level security", "Schema per tenant", "Database per tenant")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(text) if kind == language]


class Operator:
    """Runs the guide's SQL: as the superuser, with names of this test alone."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database
        self.role = fresh_database_name("shop_app")
        self.databases: list[str] = []
        self.roles: list[str] = []

    async def run(self, sql: str, *, database: str | None = None, **names: str) -> None:
        for name, value in names.items():
            sql = sql.replace(f":{name}", identifier(value))
        connection = await asyncpg.connect(self.server.url(database or self.database))
        try:
            await connection.execute(sql.replace("shop_app", self.role))
        finally:
            await connection.close()

    def url(self) -> str:
        return self.server.url(self.database, user=self.role, password="change me")

    async def set_up(self, pattern: str, *tenants: str) -> None:
        """Do what the guide says for one of `PATTERNS`."""
        sql = blocks(SECTIONS[pattern], "sql")
        if pattern == "Row-level security":
            await self.run(sql[0])
            return
        (role,) = re.findall(r"CREATE ROLE shop_app[^;]*;", "\n".join(blocks(GUIDE, "sql")))
        await self.run(role.replace(" LOGIN", " LOGIN NOINHERIT"))
        for tenant in tenants:
            if pattern == "Schema per tenant":
                name = SchemaPerTenant(self.url()).schema_of(tenant)
                await self.run(sql[0], schema=name)
                self.roles.append(name)
            else:
                name = DatabasePerTenant(self.url()).database_of(tenant)
                await self.run(sql[0].replace(":database", identifier(name)))
                self.databases.append(name)
                await self.run(sql[1], database=name)


@asynccontextmanager
async def operating(server: PostgresServer, database: str) -> AsyncIterator[Operator]:
    """An operator who cleans up."""
    operator = Operator(server, database)
    try:
        yield operator
    finally:
        for name in operator.databases:
            await operator.run(f"DROP DATABASE {identifier(name)} WITH (FORCE)")
        for role in ("shop_app", *map(identifier, operator.roles)):
            await operator.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
