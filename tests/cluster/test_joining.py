"""A node that cannot join leaves nothing behind, and may try again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from edge.call import Connections
from edge.client import Client
from edge.fleet import Shared
from edge.server import make_server
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.runtime import ClusterOptions, Runtime
from understudy.runtime.cluster.errors import NodeIdTaken
from understudy.runtime.commands.nats_program import NatsServerOptions
from understudy.runtime.commands.nats_server import NatsServer
from understudy.runtime.errors import ConfigurationError


async def test_a_node_whose_id_is_taken_is_not_started_and_can_be_started_later(nats_url: str) -> None:
    store, options = Shared(), ClusterOptions(fresh_name("join"), nats_url)

    def node() -> Runtime:
        return Runtime(make_server(), store=store, node_id="node-1", cluster=options)

    first, second = node(), node()
    async with asyncio.timeout(PATIENCE):
        async with first:
            with pytest.raises(NodeIdTaken):
                await second.__aenter__()
            assert second.edge is None
            assert await second.not_ready() == ["not started"]
        async with second, Connections(second.app) as connections:
            client = Client(connections)
            await client.open()
            assert await client.tool("increment") == 1


def test_a_body_that_could_not_cross_between_nodes_is_refused_at_the_start() -> None:
    """any-node: else it would be taken by one node, and refused by another."""
    Runtime(make_server(), max_body=16 * 2**20, cluster=ClusterOptions("join"))
    with pytest.raises(ConfigurationError, match="max_body is 16777217"):
        Runtime(make_server(), max_body=16 * 2**20 + 1, cluster=ClusterOptions("join"))


async def test_a_node_that_nats_does_not_take_back_says_why(
    nats_servers: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_servers(user="u", password="before")
    await server.start()
    options = ClusterOptions(fresh_name("join"), f"nats://u:before@127.0.0.1:{server.port}", lease=30.0)
    node = Runtime(make_server(), store=Shared(), node_id="node-1", cluster=options)

    async def told(words: str) -> None:
        while not any(words in reason for reason in await node.not_ready()):
            await asyncio.sleep(0.02)

    async with asyncio.timeout(PATIENCE), node:
        await server.stop()
        await told("no NATS server at")
        other = NatsServer(server.directory, NatsServerOptions(user="u", password="after"), port=server.port)
        async with other:
            await told("refused our credentials: check user and password")
        await server.start()
        while await node.not_ready():
            await asyncio.sleep(0.02)
    assert caplog.text.count("NATS does not take this node back: ") == 1
    assert "before" not in caplog.text
