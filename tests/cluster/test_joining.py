"""A node that cannot join leaves nothing behind, and may try again."""

from __future__ import annotations

import asyncio

import pytest
from edge.call import Connections
from edge.client import Client
from edge.fleet import Shared
from edge.server import make_server
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.runtime import ClusterOptions, Runtime
from understudy.runtime.cluster.errors import NodeIdTaken
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
