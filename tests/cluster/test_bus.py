"""`BusHub`: who listens at one node hears what a tool at another publishes, once, and nothing of other tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.server import Stage, make_server
from edge.test_listening import heard, listen
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.actors.packing import pack
from understudy.runtime import TenantContext
from understudy.runtime.commands.nats_server import NatsServer

ACME, BITS = "acme", "bits"
SERVERS = pytest.mark.parametrize("server", [make_server, lambda stage: lambda tenant: make_server(stage)])


def by_tenant(node: int) -> Callable[[Request], TenantContext]:
    return lambda request: TenantContext(request.headers["authorization"], "somebody")


async def listens(node: Member, tenant: str, *uris: str) -> HTTPCall:
    client = node.modern()
    client.headers["authorization"] = tenant
    return await listen(client, *uris)


async def announce(node: Member, tenant: str) -> None:
    client = node.modern()
    client.headers["authorization"] = tenant
    assert await client.tool("announce") == "announced"


async def until(happened: Callable[[], Any], patience: float = PATIENCE) -> None:
    async with asyncio.timeout(patience):
        while not happened():
            await asyncio.sleep(0.005)


async def all_told(nodes: list[Member], published: int) -> None:
    """Until each node has heard what the others have published."""
    await until(lambda: all(hub(node).heard >= published - hub(node).published for node in nodes))


def hub(node: Member) -> Any:
    assert node.runtime.cluster is not None
    return node.runtime.cluster.commons.hub


@SERVERS
async def test_each_listener_hears_of_a_change_once_wherever_it_was_made(nats_url: str, server: Any) -> None:
    async with household(nats_url, 3, server=server, tenants=by_tenant) as nodes:
        streams = [await listens(node, ACME) for node in nodes]
        for number, node in enumerate(nodes, 1):
            await announce(node, ACME)
            await all_told(nodes, number)
            await until(lambda: all(len(heard(stream)) >= number for stream in streams))  # noqa: B023
        await asyncio.sleep(0.05)
        assert [heard(stream) for stream in streams] == [["tools/list_changed"] * 3] * 3


@SERVERS
async def test_a_sessions_tool_at_its_owner_is_heard_everywhere(nats_url: str, server: Any) -> None:
    async with household(nats_url, 3, server=server, tenants=by_tenant) as nodes:
        streams = [await listens(node, ACME, "stage://a") for node in nodes]
        client = nodes[0].modern()
        client.headers["authorization"] = ACME
        session = await client.handle()
        away = nodes[1].modern()
        away.headers["authorization"] = ACME
        await away.tool("touch", {"uri": "stage://other", "session": session})
        await away.tool("touch", {"uri": "stage://a", "session": session})
        await until(lambda: all(heard(stream) == ["stage://a"] for stream in streams))


async def test_no_wrong_tenant_hears_of_it(nats_url: str) -> None:
    async with household(nats_url, server=lambda stage: lambda tenant: make_server(stage), tenants=by_tenant) as nodes:
        strangers = [await listens(node, BITS) for node in nodes]
        friends = [await listens(node, ACME) for node in nodes]
        await announce(nodes[0], ACME)
        await until(lambda: all(heard(stream) for stream in friends))
        await announce(nodes[1], BITS)
        await until(lambda: all(heard(stream) for stream in strangers))
        for stream in (*friends, *strangers):
            assert heard(stream) == ["tools/list_changed"]


async def test_what_is_no_message_of_ours_is_dropped(nats_url: str) -> None:
    async with household(nats_url) as nodes:
        stream = await listens(nodes[0], "")
        cluster = nodes[1].runtime.cluster
        assert cluster is not None
        for packed in (
            b"",
            b"\xc1",
            pack(7),
            pack([]),
            pack([1]),
            pack([1, "x", "", "nothing", ""]),
            pack([1, "x", "", "tools", 7]),
            pack([1, "x", 7, "tools", ""]),
            pack([2, "x", "", "tools", ""]),
            pack([1, "x", "", "updated", "u" * 70_000]),
            pack([1, ["x"], "", "tools", ""]),
        ):
            await cluster.connection.publish(cluster.names.bus, packed)
        # A later version may say more.
        await cluster.connection.publish(cluster.names.bus, pack([1, "x", "", "tools", "", "more"]))
        await until(lambda: heard(stream))
        assert heard(stream) == ["tools/list_changed"]


async def test_after_nats_was_away_changes_are_heard_again(nats_servers: Callable[..., NatsServer]) -> None:
    async with nats_servers() as server, household(server.url) as nodes:
        streams = [await listens(node, "") for node in nodes]
        server.kill()
        await until(lambda: not any(node.runtime.cluster.connected for node in nodes))
        # Here it is heard all the same, and the call does not wait for NATS.
        async with asyncio.timeout(2):
            await announce(nodes[0], "")
        await until(lambda: heard(streams[0]))
        await server.start()
        await until(lambda: all(node.runtime.cluster.connected for node in nodes))
        before = len(heard(streams[0]))
        await announce(nodes[1], "")
        await until(lambda: len(heard(streams[0])) > before)


async def test_a_node_alone_hears_itself(nats_url: str) -> None:
    async with household(nats_url, 1) as (node,):
        stream = await listens(node, "")
        await announce(node, "")
        await until(lambda: heard(stream))
        await announce(node, "")
        await until(lambda: len(heard(stream)) == 2)
        assert hub(node).heard == 0


async def test_a_listener_that_has_left_is_forgotten(nats_url: str) -> None:
    stage = Stage()
    async with household(nats_url, server=lambda _: lambda tenant: make_server(stage), tenants=by_tenant) as nodes:
        stream = await listens(nodes[1], ACME)
        stream.disconnect()
        await stream.done()
        await announce(nodes[0], ACME)
        await until(lambda: hub(nodes[1]).heard == 1)
        again = await listens(nodes[1], ACME)
        await announce(nodes[0], ACME)
        await until(lambda: heard(again))
        await asyncio.sleep(0.05)
        assert heard(again) == ["tools/list_changed"]
