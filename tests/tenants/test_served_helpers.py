"""`understudy serve --files --secrets --database`: what tools of tenants are offered by the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from support.guide_databases import operating
from support.postgres import PASSWORD, PostgresServer
from support.server import ServerProcess, StartError
from understudy.actors.session.tenants.secrets_file import SecretsFileError
from understudy.runtime import (
    ApiKey,
    ClusterOptions,
    DatabasePerTenant,
    RowLevelSecurity,
    SchemaPerTenant,
    TenantContext,
    new_api_key,
)
from understudy.runtime.commands.config import ConfigError, ServeOptions
from understudy.runtime.commands.serve_tenants import helpers_of
from understudy.runtime.credentials.api_key_lines import key_line

SHOP = """
from mcp.server.mcpserver import MCPServer
from understudy.runtime import current_tenant

server = MCPServer("shop")


@server.tool()
async def keep(text: str) -> str:
    tenant = current_tenant()
    if text:
        await tenant.files.append("notes", text)
    return f"{await tenant.files.read_text('notes')} {await tenant.secrets.reveal('TOKEN')}"


@server.tool()
async def order(item: str) -> int:
    async with current_tenant().connection() as connection:
        await connection.execute("INSERT INTO orders (item) VALUES ($1)", item)
        return await connection.fetchval("SELECT count(*) FROM orders")
"""


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.toml"
    path.write_text('[tenants.acme]\nTOKEN = "token-of-acme"\n[tenants.zenith]\nTOKEN = "token-of-zenith"\n')
    path.chmod(0o600)
    return path


async def call(server: ServerProcess, key: str, tool: str, **arguments: str) -> object:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    headers = {
        "authorization": f"Bearer {key}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": tool,
    }
    async with httpx.AsyncClient() as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = (await http.post(server.url, json=body, headers=headers, timeout=20)).json()
    assert not answer["result"].get("isError"), answer
    return answer["result"]["structuredContent"]["result"]


async def test_tools_have_their_tenants_files_secrets_and_rows(
    tmp_path: Path, secrets_file: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    keys = {tenant: new_api_key() for tenant in ("acme", "zenith")}
    lines = [key_line(ApiKey.of(key, TenantContext(tenant, "ada"))) for tenant, key in keys.items()]
    (tmp_path / "keys.toml").write_text("\n".join(lines))
    target = f"{tmp_path / 'shop.py'}:server"
    options = ["--api-keys", tmp_path / "keys.toml", "--files", tmp_path / "files", "--secrets", secrets_file]
    words = [*map(str, options), "--store", "memory://", "--database-isolation", "rows"]
    async with operating(postgres_server, postgres_database) as operator:
        await operator.set_up("Row-level security")
        async with ServerProcess(target, *words, env={"UNDERSTUDY_DATABASE": operator.url()}) as server:
            for tenant, key in keys.items():
                assert await call(server, key, "keep", text=f"of {tenant}") == f"of {tenant} token-of-{tenant}"
            orders = [await call(server, keys[tenant], "order", item="x") for tenant in ("acme", "acme", "zenith")]
            assert orders == [1, 2, 1]
            assert "token-of" not in server.output
            assert "change me" not in server.output
        # A role that no policy binds.
        with pytest.raises(StartError, match="superuser") as caught:
            ServerProcess(target, *words, env={"UNDERSTUDY_DATABASE": postgres_server.url(postgres_database)}).start()
        assert PASSWORD not in str(caught.value)
    assert len(list((tmp_path / "files").iterdir())) == 2


@pytest.mark.parametrize(
    ("isolation", "kind"),
    [
        ("rows", RowLevelSecurity),
        ("schemas", SchemaPerTenant),
        ("roles", SchemaPerTenant),
        ("databases", DatabasePerTenant),
    ],
)
def test_each_isolation_is_a_pattern_of_the_guide(isolation: Any, kind: type) -> None:
    options = ServeOptions(database="postgresql://app:s3cret@host/db", database_isolation=isolation)
    database = helpers_of(options)["database"]
    assert type(database) is kind
    if kind is SchemaPerTenant:
        assert database._roles == (isolation == "roles")
    assert "s3cret" not in repr(options)


def test_what_cannot_be_offered_is_refused_before_anything_starts(secrets_file: Path) -> None:
    with pytest.raises(ConfigError, match="--database needs --database-isolation rows"):
        ServeOptions(database="postgresql://app:s3cret@host/db")
    with pytest.raises(ConfigError, match="name --database URL"):
        ServeOptions(database_isolation="rows")
    secrets_file.chmod(0o644)
    with pytest.raises(SecretsFileError, match="chmod 600"):
        ServeOptions(secrets=secrets_file)


def test_no_options_tell_the_passwords_that_they_hold() -> None:
    url = "nats://user:s3cret@127.0.0.1:4222"
    for options in (ServeOptions(cluster="shop", nats=url, store=f"{url}/bucket"), ClusterOptions("shop", nats=url)):
        assert "s3cret" not in repr(options)
