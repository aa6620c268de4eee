"""`understudy serve --cluster`: what keeps a node out of its cluster, and how it leaves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from mcp.client import Client
from support import ServerProcess
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.runtime.commands.nats_server import NatsServer

DEMO = "understudy.runtime.demo:server"

Serve = Callable[..., ServerProcess]
Servers = Callable[..., NatsServer]


async def refusal(*args: str) -> tuple[int | None, str]:
    """Exit code and words of a node that cannot start."""
    command = [sys.executable, "-m", "understudy.runtime", "serve", DEMO, "--port", "0", "--log-level", "error", *args]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert out == b""
    assert len(err.splitlines()) == 1, err.decode()
    return process.returncode, err.decode()


async def test_a_wrong_password_is_told_without_repeating_it(nats_servers: Servers) -> None:
    async with nats_servers(user="u", password="right") as nats:
        url = nats.url.replace("://", "://u:secret@")
        code, words = await refusal("--cluster", "a", "--nats", url)
    assert (code, "refused our credentials" in words, "secret" in words) == (1, True, False)


async def test_nats_without_jetstream_is_told_with_what_to_do(nats_servers: Servers) -> None:
    async with nats_servers(jetstream=False) as nats:
        code, words = await refusal("--cluster", "a", "--nats", nats.url)
    assert (code, "runs without JetStream: start nats-server with -js" in words) == (1, True)


async def test_no_nats_server_is_told_with_where_it_was_looked_for(free_port: int) -> None:
    code, words = await refusal("--cluster", "a", "--nats", f"nats://127.0.0.1:{free_port}")
    assert (code, f"no NATS server at nats://127.0.0.1:{free_port}" in words) == (1, True)


async def test_a_name_that_a_living_node_has_is_refused_and_an_equal_one_in_another_cluster_is_not(
    serve: Serve, nats_url: str
) -> None:
    one, other = fresh_name(), fresh_name()
    node = ("--nats", nats_url, "--node", "n1")
    async with serve(DEMO, *node, "--cluster", one), serve(DEMO, *node, "--cluster", other):
        code, words = await refusal(*node, "--cluster", one)
    assert (code, "node id 'n1' is in use by process" in words) == (1, True)


async def test_stores_that_are_not_the_same_are_refused(serve: Serve, nats_url: str, tmp_path: Any) -> None:
    # A node that a busy machine holds up for longer than its lease has no say.
    cluster = ("--nats", nats_url, "--cluster", fresh_name(), "--lease", "30s")
    async with serve(DEMO, *cluster, "--node", "n1", "--store", f"sqlite:///{tmp_path / 'a.db'}"):
        code, words = await refusal(*cluster, "--node", "n2", "--store", f"sqlite:///{tmp_path / 'b.db'}")
    assert (code, "keeps sessions in another store" in words) == (2, True)


@pytest.mark.parametrize("http", ["hypercorn", "granian"])
async def test_a_node_that_is_asked_to_stop_gives_its_sessions_away_and_answers_on_as_an_edge(
    http: str, serve: Serve, nats_url: str
) -> None:
    cluster = ("--nats", nats_url, "--cluster", fresh_name(), "--http", http, "--lame-duck", "1s")
    first = serve(DEMO, *cluster, "--node", "n1", "--advertise", "http://balancer.example/mcp")
    second = serve(DEMO, *cluster, "--node", "n2")
    async with first, second, httpx.AsyncClient() as web:
        async with Client(first.url, mode="legacy", read_timeout_seconds=PATIENCE) as client:
            assert await value(client, "increment") == 1
            assert (await value(client, "whoami"))["node"] == "n1"
            first.terminate()
            async with asyncio.timeout(PATIENCE):
                while (await web.get(f"{first.base_url}/readyz")).status_code == 200:
                    await asyncio.sleep(0.01)
                while (await value(client, "whoami"))["node"] == "n1":
                    await asyncio.sleep(0.01)
            # It is an edge now: it says that it will go, and answers until then.
            assert await value(client, "increment") == 2
            assert (await web.get(f"{first.base_url}/readyz")).status_code == 503
        assert await asyncio.to_thread(first.wait, PATIENCE) == 0
        assert "Traceback" not in first.output + second.output
        assert "every finished turn is saved" in first.output


async def test_the_last_node_does_not_wait_for_anybody_to_turn_away(serve: Serve, nats_url: str) -> None:
    async with serve(DEMO, "--nats", nats_url, "--cluster", fresh_name(), "--lame-duck", "10m") as node:
        node.terminate()
        assert await asyncio.to_thread(node.wait, PATIENCE) == 0


async def test_the_environment_is_enough_to_log_in(serve: Serve, nats_servers: Servers) -> None:
    async with nats_servers(user="u", password="p/w") as nats:
        environment = {
            "UNDERSTUDY_NATS": nats.url,
            "UNDERSTUDY_NATS_USER": "u",
            "UNDERSTUDY_NATS_PASSWORD": "p/w",
            "UNDERSTUDY_CLUSTER": fresh_name(),
        }
        async with serve(DEMO, env=environment) as node, Client(node.url, mode="legacy") as client:
            assert await value(client, "increment") == 1
        assert "p/w" not in node.output
        assert "p%2Fw" not in node.output


async def value(client: Client, tool: str) -> Any:
    result = await client.call_tool(tool)
    assert result.structured_content is not None, result.content
    return result.structured_content.get("result", result.structured_content)
