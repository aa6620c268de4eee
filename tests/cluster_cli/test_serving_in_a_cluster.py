"""`understudy serve --cluster`: how a node leaves. What keeps one out is in `tests/chaos/test_chaos_refusals.py`."""

from __future__ import annotations

import asyncio
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
        async with serve(DEMO, env=environment, fresh=True) as node, Client(node.url, mode="legacy") as client:
            assert await value(client, "increment") == 1
        assert "p/w" not in node.output
        assert "p%2Fw" not in node.output


async def value(client: Client, tool: str) -> Any:
    result = await client.call_tool(tool)
    assert result.structured_content is not None, result.content
    return result.structured_content.get("result", result.structured_content)
