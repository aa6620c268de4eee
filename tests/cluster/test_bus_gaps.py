"""The bus never misses silently: who listens hears of every change, or is told to read everything again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
from cluster.household import Member, household
from cluster.test_bus import hub, until
from edge.call import HTTPCall
from edge.client import Client, ModernClient, connected
from edge.server import Stage
from edge.test_listening import listen
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from support.patience import PATIENCE
from understudy.actors.packing import pack
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import ClusterOptions, Runtime
from understudy.runtime.cluster import bus as bus_module
from understudy.runtime.commands.nats_server import NatsServer
from understudy.stores import Address

UPDATES = 10_000
EACH = UPDATES // 2
LEASE = 1.0


class World:
    """What the resources are, and what one client believes them to be."""

    def __init__(self, resources: int, updates: int = UPDATES) -> None:
        """Of so many `updates` each resource has its share one after the other, so that none hides an earlier loss."""
        self.updates = updates
        self.uris = [f"world://{number}" for number in range(resources)]
        self.truth = dict.fromkeys(self.uris, 0)

    def make_server(self, _: Stage) -> MCPServer:
        server = MCPServer("world", log_level="CRITICAL")

        @server.tool(annotations=ToolAnnotations(read_only_hint=True))
        async def change(first: int, count: int, ctx: Context) -> str:
            for number in range(first, first + count):
                uri = self.uris[number * len(self.uris) // self.updates % len(self.uris)]
                self.truth[uri] += 1
                await ctx.notify_resource_updated(uri)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            return "changed"

        @server.tool(annotations=ToolAnnotations(read_only_hint=True))
        async def rename(ctx: Context) -> str:
            await ctx.notify_tools_changed()
            return "renamed"

        return server


class Reader:
    """A client that reads its stream as it comes, and each resource anew when it is told that it has changed."""

    def __init__(self, world: World, call: HTTPCall, uris: list[str] | None = None) -> None:
        """`uris`: what it has asked for; None: all."""
        self.world = world
        self.call = call
        self.uris = world.uris if uris is None else uris
        self.beliefs = dict.fromkeys(self.uris, 0)
        self.heard: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            self.call._news.clear()
            whole, end, rest = self.call.body.rpartition(b"\n\n")
            if end:
                # What has been read is not kept: a body that grows by each event is copied with each.
                self.call.body = rest
                self._take(whole.split(b"\n"))
            if self.call.returned:
                return
            await self.call._news.wait()

    def _take(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if line.startswith(b"data: {"):
                message = json.loads(line[6:])
                uri = message.get("params", {}).get("uri")
                self.heard[uri or message.get("method", "").removeprefix("notifications/")] += 1
                if uri is not None:
                    self.beliefs[uri] = self.world.truth[uri]

    @property
    def updates(self) -> int:
        return sum(self.heard[uri] for uri in self.uris)

    @property
    def right(self) -> bool:
        return all(self.world.truth[uri] == belief for uri, belief in self.beliefs.items())


async def subscribed(node: Member, world: World) -> tuple[Client, HTTPCall]:
    """A handshake-era session with a standalone stream, subscribed to every resource of the world."""
    client = node.client()
    await client.open()
    stream = await node.same(client).start("GET").started()
    for uri in world.uris:
        assert (await client.ask("resources/subscribe", {"uri": uri})).result == {}
    return client, stream


@asynccontextmanager
async def reading(*readers: Reader) -> AsyncIterator[None]:
    async with TaskOwner() as tasks:
        running = [tasks.spawn(reader.run()) for reader in readers]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def publish(nodes: list[Member]) -> None:
    """All of the updates, at both nodes at once."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        for number, node in enumerate(nodes):
            tasks.create_task(node.modern().tool("change", {"first": number * EACH, "count": EACH}))


def quick(_: int) -> dict[str, Any]:
    return {"lease": LEASE}


async def test_each_of_10_000_updates_from_two_nodes_is_heard_in_both_eras(nats_url: str) -> None:
    world = World(100)
    async with household(nats_url, 3, server=world.make_server) as nodes:
        modern = Reader(world, await listen(nodes[0].modern(), *world.uris))
        _, standing = await subscribed(nodes[0], world)
        handshake = Reader(world, standing)
        async with reading(modern, handshake):
            await publish(nodes[1:])
            await until(lambda: modern.updates >= UPDATES and handshake.updates >= UPDATES)
        assert hub(nodes[0]).gaps == 0
        for reader in (modern, handshake):
            assert {reader.heard[uri] for uri in world.uris} == {UPDATES // 100}
            assert reader.right


async def test_with_nats_cut_off_twice_each_of_10_000_is_heard_or_to_be_read_again(nats_url: str) -> None:
    """Each resource changes once, so that nothing that comes later can hide a loss."""
    world = World(UPDATES)
    # With the usual lease: a busy machine that held a node up for longer than a short one would move the session.
    async with household(nats_url, 3, server=world.make_server) as nodes:
        modern = Reader(world, await listen(nodes[0].modern(), *world.uris))
        client, standing = await subscribed(nodes[0], World(0))
        # As many as a session may have.
        handshake = Reader(world, standing, world.uris[::10])
        nodes[0].runtime._node.relay.subscribed(Address("session", client.session or ""), handshake.uris)  # type: ignore[union-attr]
        connection = nodes[0].runtime.cluster.connection  # type: ignore[union-attr]

        async def cut() -> None:
            for share in (0.2, 0.6):
                await until(lambda: sum(world.truth.values()) > share * UPDATES)  # noqa: B023
                connection.abort()

        async with reading(modern, handshake):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(cut())
                await publish(nodes[1:])
            await until(lambda: modern.right and handshake.right, patience=2 * PATIENCE)
        assert hub(nodes[0]).heard < UPDATES, "some were lost"
        assert set(world.truth.values()) == {1}


# One loss at a time


class Deaf:
    """Has a node lose what comes to it by the bus."""

    def __init__(self, node: Member) -> None:
        self._hub = hub(node)
        self._subscription = self._hub._subscription
        self._hear = self._subscription._cb
        self.lost = 0

    async def _lose(self, _: object) -> None:
        self.lost += 1

    def __enter__(self) -> Self:
        self._subscription._cb = self._lose
        return self

    def __exit__(self, *exc: object) -> None:
        self._subscription._cb = self._hear


@asynccontextmanager
async def two_listeners(nats_url: str, **options: Any) -> AsyncIterator[tuple[list[Member], list[Reader]]]:
    world = World(3, 3)
    async with household(nats_url, 2, server=world.make_server, settings=quick, **options) as nodes:
        modern = Reader(world, await listen(nodes[0].modern(), *world.uris))
        _, standing = await subscribed(nodes[0], world)
        readers = [modern, Reader(world, standing)]
        async with reading(*readers):
            yield nodes, readers


async def change(node: Member, resource: int) -> None:
    assert await node.modern().tool("change", {"first": resource, "count": 1}) == "changed"


async def deaf_to(node: Member, other: Member, resource: int) -> None:
    """Lose one update of `other`'s at `node`."""
    with Deaf(node) as deaf:
        await change(other, resource)
        await until(lambda: deaf.lost)


async def test_what_is_lost_in_the_middle_is_told_with_the_next_change(nats_url: str) -> None:
    async with two_listeners(nats_url) as (nodes, readers):
        await change(nodes[1], 0)
        await until(lambda: all(reader.right for reader in readers))
        await deaf_to(nodes[0], nodes[1], 1)
        assert not any(reader.right for reader in readers)
        await change(nodes[1], 2)
        await until(lambda: all(reader.right for reader in readers))
        for reader in readers:
            assert reader.heard["world://0"] == 2
            assert reader.heard["tools/list_changed"] == 1, "what it listens for is to be read again too"


async def test_what_is_lost_last_is_told_by_the_lease(nats_url: str) -> None:
    async with two_listeners(nats_url) as (nodes, readers):
        await deaf_to(nodes[0], nodes[1], 1)
        began = asyncio.get_running_loop().time()
        await until(lambda: all(reader.right for reader in readers))
        # Two looks, of which one may be about to come: but the machine may be busy.
        assert asyncio.get_running_loop().time() - began < 10 * LEASE


async def test_what_could_not_be_sent_is_told_by_the_lease(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_listeners(nats_url) as (nodes, readers):
        cluster = nodes[1].runtime.cluster
        assert cluster is not None
        connection, bus = cluster.connection, cluster.names.bus
        send = connection.publish

        async def fails(subject: str, *args: Any, **more: Any) -> None:
            if subject == bus:
                raise OSError("no")
            await send(subject, *args, **more)

        monkeypatch.setattr(connection, "publish", fails)
        await change(nodes[1], 1)
        assert hub(nodes[1]).failed == 1
        await until(lambda: all(reader.right for reader in readers))


async def test_the_last_words_of_a_node_that_dies_may_be_lost(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_listeners(nats_url) as (nodes, readers):
        await change(nodes[1], 0)
        await until(lambda: all(reader.right for reader in readers))
        rereads = hub(nodes[0]).rereads
        await deaf_to(nodes[0], nodes[1], 1)
        # It neither renews nor says goodbye.
        nodes[1].runtime.cluster.connection.abort()  # type: ignore[union-attr]
        monkeypatch.setattr(nodes[1].runtime.cluster.membership, "_renew", never)  # type: ignore[union-attr]
        await until(lambda: all(reader.right for reader in readers))
        assert hub(nodes[0]).rereads > rereads


async def never() -> bool:
    return False


async def test_a_node_that_stops_in_order_costs_nobody_a_thing(nats_url: str) -> None:
    world = World(3, 3)
    async with household(nats_url, 1, server=world.make_server, settings=quick) as (stays,):
        cluster = stays.runtime.cluster
        assert cluster is not None
        leaves = Runtime(
            world.make_server(Stage()),
            store=stays.runtime._options.store,
            node_id="leaves",
            cluster=ClusterOptions(cluster.options.name, nats_url, lease=LEASE),
        )
        async with leaves, connected(leaves.app, ModernClient) as client:
            await client.tool("change", {"first": 0, "count": 3})
            await until(lambda: hub(stays)._numbers._origins)
            origin = leaves.cluster.commons.hub.origin  # type: ignore[union-attr]
            assert list(hub(stays)._numbers._origins) == [origin]
        await until(lambda: len(hub(stays)._numbers) == 0)
        await asyncio.sleep(LEASE)
        assert hub(stays).gaps == 0


async def test_a_restart_of_nats_is_a_gap(nats_servers: Callable[..., NatsServer]) -> None:
    async with nats_servers() as server, two_listeners(server.url) as (nodes, readers):
        server.kill()
        await until(lambda: not any(node.runtime.cluster.connected for node in nodes))  # type: ignore[union-attr]
        await change(nodes[1], 1)
        assert not any(reader.right for reader in readers)
        await server.start()
        await until(lambda: all(reader.right for reader in readers))


async def test_gaps_that_come_together_are_told_together(nats_url: str) -> None:
    async with two_listeners(nats_url) as (nodes, _):
        cluster = nodes[1].runtime.cluster
        assert cluster is not None
        before = hub(nodes[0]).rereads
        for number in range(100):
            await cluster.connection.publish(
                cluster.names.bus, pack([1, "stranger", "", "nothing", "", 2 * number + 2])
            )
        await until(lambda: hub(nodes[0]).gaps >= 100)
        await until(lambda: hub(nodes[0]).rereads > before)
        await asyncio.sleep(0.2)
        assert hub(nodes[0]).rereads <= before + 2


async def test_a_uri_that_is_too_long_to_cross_is_a_gap(nats_url: str) -> None:
    async with two_listeners(nats_url) as (nodes, _):
        cluster = nodes[1].runtime.cluster
        assert cluster is not None
        long = "u" * (bus_module.MAX_URI + 1)
        await cluster.connection.publish(cluster.names.bus, pack([1, "stranger", "", "updated", long, 1]))
        await until(lambda: hub(nodes[0]).gaps)


async def test_a_node_of_a_version_without_numbers_is_heard_and_never_a_gap(nats_url: str) -> None:
    async with two_listeners(nats_url) as (nodes, readers):
        cluster = nodes[1].runtime.cluster
        assert cluster is not None
        for _ in range(3):
            await cluster.connection.publish(cluster.names.bus, pack([1, "old", "", "updated", "world://1"]))
        await until(lambda: all(reader.heard["world://1"] == 3 for reader in readers))
        assert hub(nodes[0]).gaps == 0


async def test_with_nothing_lost_nobody_is_told_to_read_again(nats_url: str) -> None:
    async with two_listeners(nats_url) as (nodes, readers):
        for number in range(30):
            await change(nodes[number % 2], number)
            await asyncio.sleep(LEASE / 15)
        await until(lambda: all(reader.updates == 30 for reader in readers))
        assert [hub(node).gaps for node in nodes] == [0, 0]
