"""What a node does not import before somebody needs it: each of these costs a cold start tens of milliseconds."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from mcp.client import Client
from support import ServerProcess
from support.patience import PATIENCE

HEAVY = ("aiobotocore", "aiohttp", "asyncpg", "botocore", "cryptography", "fastmcp", "granian", "hiredis", "jwt",
         "nats", "nkeys", "opentelemetry.sdk", "redis", "uvicorn", "understudy.bench", "understudy.runtime.link",
         "understudy.runtime.cluster.cluster", "understudy.runtime.databases", "understudy.stores.contract",
         "understudy.stores.dynamodb.store", "understudy.stores.moving", "understudy.stores.nats.store",
         "understudy.stores.postgresql", "understudy.stores.redis")  # fmt: skip

LOADED = {"click", "h11", "h2", "hpack", "hypercorn", "hyperframe", "msgpack", "priority", "prometheus_client",
          "understudy", "uvloop", "wsproto"}  # fmt: skip
"""The packages that a node needs beside the SDK's: for the command line, HTTP, snapshots and metrics."""

DRIVERS = {
    "dynamodb": {"aiobotocore", "aiohttp", "botocore"},
    # For connections by WebSocket, where it is installed.
    "nats": {"nats", "aiohttp"},
    "postgresql": {"asyncpg"},
    "redis": {"redis"},
    "sqlite": set[str](),
}
"""What each store is made of."""

TARGET = """\
import sys

from mcp.server import MCPServer

server = MCPServer("cold", log_level="WARNING")


@server.tool()
def loaded() -> list[str]:
    return sorted(sys.modules)
"""


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_an_interruption_while_the_command_line_is_imported_leaves_no_trace() -> None:
    code = """
import sys


class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "understudy.runtime.commands.cli":
            raise KeyboardInterrupt


sys.meta_path.insert(0, Interrupted())
from understudy.runtime.commands.script import main

main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_the_command_line_does_not_wait_for_the_sdk() -> None:
    assert not loaded("import understudy.runtime.commands.cli") & {
        "mcp",
        "mcp_types",
        "pydantic",
        "starlette",
        "hypercorn",
    }


@pytest.fixture(scope="module")
def of_a_node(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What `understudy serve` with a SQLite store has loaded when it has woken a session and answered its call."""
    folder = tmp_path_factory.mktemp("cold")
    (folder / "cold_target.py").write_text(TARGET)
    server = ServerProcess(
        f"{folder}/cold_target.py:server",
        "--store",
        f"sqlite:///{folder}/sessions.db",
        "--http",
        "hypercorn",
        fresh=True,
    )

    async def asked() -> Any:
        async with server, Client(server.url, mode="legacy", read_timeout_seconds=PATIENCE) as client:
            await client.call_tool("loaded", {})
            await server.astop()
            await server.astart()
            return (await client.call_tool("loaded", {})).structured_content

    return set(asyncio.run(asked())["result"]) - {"cold_target"}


@pytest.fixture(scope="module")
def of_the_sdk() -> set[str]:
    return loaded("import mcp.server; mcp.server.MCPServer('cold').streamable_http_app()")


@pytest.mark.parametrize("module", HEAVY)
def test_a_node_alone_does_not_load(module: str, of_a_node: set[str], of_the_sdk: set[str]) -> None:
    assert "understudy.runtime.node" in of_a_node
    assert module not in of_a_node - of_the_sdk


def test_a_node_alone_loads_few_packages_beside_the_sdk(of_a_node: set[str], of_the_sdk: set[str]) -> None:
    theirs = _packages(of_the_sdk) | sys.stdlib_module_names
    # Modules that Cython makes up for what it has compiled.
    assert {name for name in _packages(of_a_node) - theirs if "cython" not in name} <= LOADED


@pytest.mark.parametrize("store", sorted(DRIVERS))
def test_a_store_loads_no_driver_but_its_own(store: str) -> None:
    foreign = set[str]().union(*DRIVERS.values()) - DRIVERS[store]
    assert not foreign & loaded(f"import understudy.stores.{store}.store")


def _packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}
