"""Each database pattern of the guide, as it stands there, in both eras and for two tenants."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import understudy.runtime.databases
from edge.client import Client, ModernClient, connected
from edge.test_session_ids import by_bearer
from support.postgres import PostgresServer, fresh_database_name
from understudy.runtime import DatabasePerTenant, Runtime, SchemaPerTenant
from understudy.runtime.databases.statements import identifier

GUIDE = (Path(understudy.runtime.databases.__file__).parent / "README.md").read_text()
SECTIONS: dict[str, str] = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", GUIDE, re.M | re.S))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(text) if kind == language]


class Operator:
    """Runs the guide's SQL: as the superuser, with names of this test alone."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database
        self.role = fresh_database_name("shop_app")
        self.made: list[str] = []
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


@pytest.fixture
async def operator(postgres_server: PostgresServer, postgres_database: str) -> AsyncIterator[Operator]:
    operator = Operator(postgres_server, postgres_database)
    yield operator
    for database in operator.made:
        await operator.run(f"DROP DATABASE {identifier(database)} WITH (FORCE)")
    for role in operator.roles:
        # Roles are the whole server's, and outlive the database.
        await operator.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
    await operator.run("DROP OWNED BY shop_app; DROP ROLE shop_app")


async def set_up(operator: Operator, section: str) -> None:
    sql = blocks(SECTIONS[section], "sql")
    if section == "Row-level security":
        await operator.run(sql[0])
        return
    (role,) = re.findall(r"CREATE ROLE shop_app[^;]*;", "\n".join(blocks(GUIDE, "sql")))
    await operator.run(role.replace(" LOGIN", " LOGIN NOINHERIT"))
    for tenant in ("acme", "evil"):
        if section == "Schema per tenant":
            name = SchemaPerTenant(operator.url()).schema_of(tenant)
            await operator.run(sql[0], schema=name)
            operator.roles.append(name)
        else:
            name = DatabasePerTenant(operator.url()).database_of(tenant)
            await operator.run(sql[0].replace(":database", identifier(name)))
            operator.made.append(name)
            await operator.run(sql[1], database=name)


@pytest.mark.parametrize("section", ["Row-level security", "Schema per tenant", "Database per tenant"])
async def test_the_pattern_of_the_guide_keeps_tenants_apart(
    section: str, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(operator, section)
    (tmp_path / "shop.py").write_text(blocks(GUIDE, "python")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(os.environ, "DATABASE_URL", operator.url())
    names: dict[str, Any] = {"resolver": by_bearer}
    try:
        exec(compile(blocks(SECTIONS[section], "python")[0], "guide", "exec"), names)
    finally:
        sys.modules.pop("shop", None)
    runtime: Runtime = names["runtime"]
    async with runtime:
        for kind in (Client, ModernClient):
            async with connected(runtime.app, kind) as client:
                for tenant in ("acme", "evil"):
                    caller = client.twin(authorization=f"Bearer {tenant}/ann")
                    if kind is Client:
                        await caller.open()
                    before = await caller.tool("orders")
                    assert all(tenant in item for item in before)
                    assert await caller.tool("order", {"item": f"of {tenant} by {kind.__name__}"}) == len(before) + 1
                    failed = await caller.begin_tool("order", {"item": None}).answered()
                    assert failed.result["isError"]
        assert runtime.stats()["tenant_database_transactions_total"] == 8
        assert runtime.stats()["tenant_database_discarded_total"] == 0


def test_the_guide_shows_each_pattern_and_nothing_that_is_not_run() -> None:
    assert {"Row-level security", "Schema per tenant", "Database per tenant"} <= SECTIONS.keys()
    assert {language for language, _ in FENCE.findall(GUIDE)} == {"python", "sql"}
    assert len(FENCE.findall(GUIDE)) == 1 + 2 + 2 + 3
