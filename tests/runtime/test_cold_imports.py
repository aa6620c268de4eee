"""What a node does not import before somebody needs it: each of these costs a cold start tens of milliseconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("aiobotocore", "asyncpg", "botocore", "cryptography", "fastmcp", "granian", "hiredis", "jwt", "nats", "nkeys",
         "opentelemetry.sdk", "redis", "uvicorn", "understudy.bench", "understudy.runtime.link",
         "understudy.runtime.cluster.cluster", "understudy.runtime.databases", "understudy.stores.contract",
         "understudy.stores.nats.store", "understudy.stores.postgresql", "understudy.stores.redis")  # fmt: skip


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_command_line_does_not_wait_for_the_sdk() -> None:
    assert not loaded("import understudy.runtime.commands.cli") & {
        "mcp",
        "mcp_types",
        "pydantic",
        "starlette",
        "hypercorn",
    }


@pytest.fixture(scope="module")
def of_a_node() -> set[str]:
    """What a node with a SQLite store has loaded when it has answered."""
    return loaded(
        "import asyncio, tempfile\n"
        "import understudy.runtime.commands.cli, understudy.runtime.commands.serve\n"
        "from mcp.server import MCPServer\n"
        "from understudy.runtime import Runtime\n"
        "async def main():\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        async with Runtime(MCPServer('cold'), store=f'sqlite:///{folder}/sessions.db') as runtime:\n"
        "            assert not await runtime.not_ready()\n"
        "asyncio.run(main())"
    )


@pytest.fixture(scope="module")
def of_the_sdk() -> set[str]:
    return loaded("import mcp.server; mcp.server.MCPServer('cold').streamable_http_app()")


@pytest.mark.parametrize("module", HEAVY)
def test_a_node_alone_does_not_load(module: str, of_a_node: set[str], of_the_sdk: set[str]) -> None:
    assert "understudy.runtime.node" in of_a_node
    assert module not in of_a_node - of_the_sdk
