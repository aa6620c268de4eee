"""The link over a real nats-server: subjects, no responders, reconnects, and two processes' worth of connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import nats
import pytest
from link.ends import EDGE, OWNER, SEALS, Handler, Heard, a_head, answer, echo, error_of, pattern
from nats.aio.client import Client
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.runtime.commands.nats_server import NatsServer
from understudy.runtime.link import InboundCall, Link, NotRun, PeerGone
from understudy.runtime.link.incarnation import from_token, to_token
from understudy.runtime.link.nats_wire import NatsWire

Node = tuple[Link, NatsWire, Client]
Nodes = Callable[..., Awaitable[Node]]


async def quiet(_: Exception) -> None:
    """nats-py logs what it meets while its server is away."""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(
        url, error_cb=quiet, max_reconnect_attempts=-1, reconnect_time_wait=0.05, connect_timeout=5
    )
    try:
        yield client
    finally:
        with suppress(Exception):
            await client.close()


@pytest.fixture
async def nodes(nats_url: str) -> AsyncIterator[Nodes]:
    """`link, wire, client = await nodes(incarnation, handler)`: nodes of one cluster, each with its own connection."""
    cluster = fresh_name("understudy.test")
    async with AsyncExitStack() as stack:

        async def make(me: str, handler: Handler = echo, *, url: str = nats_url, prefix: str = cluster) -> Node:
            client = await stack.enter_async_context(connected(url))
            wire = NatsWire(client, prefix=prefix)
            link = await stack.enter_async_context(Link(wire, me=me, serve=handler, seals=SEALS))
            await client.flush()
            return link, wire, client

        yield make


async def ask(link: Link, body: bytes = b"ping", to: str = OWNER, **head: Any) -> Heard:
    heard = Heard()
    async with asyncio.timeout(PATIENCE):
        await link.forward(to, a_head(**head), body, heard.send)
    return heard


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("incarnation", ["node-1.k3f9a2", "a.b", "A_b-c.0"])
def test_an_incarnation_is_one_token_of_a_subject(incarnation: str) -> None:
    token = to_token(incarnation)
    assert "." not in token
    assert from_token(token) == incarnation


@pytest.mark.parametrize("token", ["", "node-1", "a~b~c", "a~", "*", "a~b\n"])
def test_a_token_of_no_incarnation_is_none(token: str) -> None:
    assert from_token(token) is None


async def test_calls_of_all_sizes_cross_a_real_server_in_both_directions(nodes: Nodes) -> None:
    owner, _, _ = await nodes(OWNER)
    edge, _, _ = await nodes(EDGE)
    assert (await ask(edge)).body == b"ping"
    assert (await ask(edge, path=f"/bytes/{8 * 1024 * 1024}")).body == pattern(8 * 1024 * 1024)
    assert (await ask(edge, pattern(4 * 1024 * 1024))).body == pattern(4 * 1024 * 1024)
    assert (await ask(owner, b"back", to=EDGE)).body == b"back"


async def test_many_calls_and_large_ones_beside_each_other(nodes: Nodes) -> None:
    await nodes(OWNER)
    edge, wire, _ = await nodes(EDGE)
    async with asyncio.TaskGroup() as group:
        large = [group.create_task(ask(edge, path="/bytes/2000000")) for _ in range(10)]
        small = [group.create_task(ask(edge, str(number).encode())) for number in range(500)]
    assert all(task.result().body == pattern(2_000_000) for task in large)
    assert [task.result().body for task in small] == [str(number).encode() for number in range(500)]
    assert wire.dropped == 0


async def test_nobody_listening_is_known_at_once(nodes: Nodes) -> None:
    edge, _, _ = await nodes(EDGE)
    async with asyncio.timeout(PATIENCE):
        gone = await error_of(ask(edge))
    assert isinstance(gone, PeerGone)
    assert not gone.maybe_ran
    assert edge.stats()["no_responders"] == 1


async def test_no_call_to_a_node_that_stops_is_left_in_doubt(nats_url: str, nodes: Nodes) -> None:
    """Its handler never waits, so that each call has run and is answered, or has not run and its caller knows."""
    cluster = fresh_name("understudy.test")
    edge, _, _ = await nodes(EDGE, prefix=cluster)
    told: list[str] = []
    owner = "owner-1.0"
    stop = asyncio.Event()

    async def call_again_and_again() -> None:
        while not stop.is_set():
            try:
                await edge.forward(owner, a_head(), b"ping", Heard().send)
            except NotRun as refused:
                told.append(refused.reason)
            except PeerGone as gone:
                told.append("in doubt" if gone.maybe_ran else "gone")
            else:
                told.append("run")
            await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(call_again_and_again())
        for life in range(10):
            before, name = told.count("run"), f"owner-1.{life}"
            async with connected(nats_url) as client:
                async with Link(NatsWire(client, prefix=cluster), me=name, serve=echo, seals=SEALS):
                    owner = name
                    await until(lambda before=before: told.count("run") > before + 50)
                # The lease is given back on the same connection, and the others hear of it.
                await client.flush()
                edge.peer_gone(name)
        stop.set()
    assert told.count("run") > 500
    assert "in doubt" not in told


async def test_an_owner_whose_connection_dies_ends_its_calls_at_the_next_word(nodes: Nodes) -> None:
    begun = asyncio.Event()

    async def handler(call: InboundCall) -> None:
        await call.receive()
        begun.set()
        await call.receive()

    _, _, connection = await nodes(OWNER, handler)
    edge, _, _ = await nodes(EDGE)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(error_of(ask(edge)))
        await begun.wait()
        await connection.close()
        # Nobody says a word for it: the edge finds out with the ping of a call that waits.
        async with asyncio.timeout(PATIENCE):
            gone = await running
    assert isinstance(gone, PeerGone)
    assert gone.maybe_ran


class Ears:
    """Counts what a wire tells."""

    def __init__(self) -> None:
        self.payloads: list[tuple[str, bytes]] = []
        self.reconnects = 0

    def on_payload(self, peer: str, payload: bytes) -> None:
        self.payloads.append((peer, payload))

    def on_no_responders(self, peer: str, tag: str) -> None: ...

    def on_reconnect(self) -> None:
        self.reconnects += 1


async def test_a_reconnect_is_told_once_by_its_owner_or_noticed_with_the_next_publish(nats_url: str) -> None:
    async with connected(nats_url) as client:
        wire, ears = NatsWire(client, prefix=fresh_name("understudy.test")), Ears()
        await wire.listen(EDGE, ears)
        wire.reconnected()
        assert ears.reconnects == 0
        for told, tell in ((1, wire.reconnected), (2, lambda: None)):
            await client.force_reconnect()
            assert not await wire.publish(OWNER, b"lost", "1-1"), "nothing is kept while there is no connection"
            await until(lambda: client.is_connected)
            tell()
            assert await wire.publish(EDGE, b"to myself", "1-1")
            assert ears.reconnects == told
            await until(lambda: len(ears.payloads) == told)  # noqa: B023
        assert ears.payloads == [(EDGE, b"to myself")] * 2
        await wire.close()
        await wire.publish(EDGE, b"late", "1-1")
        await client.flush()
        assert len(ears.payloads) == 2


async def test_two_clusters_on_one_server_never_meet(nodes: Nodes) -> None:
    await nodes(OWNER, prefix="understudy.one")
    stranger, _, _ = await nodes(EDGE, prefix="understudy.two")
    gone = await error_of(ask(stranger))
    assert isinstance(gone, PeerGone)


async def test_a_renamed_node_is_reached_by_its_new_name_only(nodes: Nodes) -> None:
    owner, _, _ = await nodes(OWNER)
    edge, _, _ = await nodes(EDGE)
    assert (await ask(edge)).body == b"ping"
    owner.rename("owner-1.new")
    await until(lambda: not owner.renaming)
    assert (await ask(edge, to="owner-1.new")).body == b"ping"
    assert isinstance(await error_of(ask(edge)), PeerGone)


async def test_strangers_on_our_subjects_are_counted_and_dropped(nodes: Nodes, nats_url: str) -> None:
    await nodes(OWNER, prefix="understudy.strange")
    edge, _, _ = await nodes(EDGE, prefix="understudy.strange")
    async with connected(nats_url) as stranger:
        mine = f"understudy.strange.link.{to_token(EDGE)}"
        await stranger.publish(f"{mine}.{to_token(OWNER)}", b"hello")
        await stranger.publish(f"{mine}.not-an-incarnation", b"hello")
        await stranger.publish(f"{mine}.{to_token(OWNER)}.1-1", b"no status")
        await stranger.flush()
    await until(lambda: edge.stats()["foreign"] == 1)
    assert (await ask(edge)).body == b"ping"
    assert edge.stats()["no_responders"] == 0


async def test_calls_go_on_when_the_server_is_restarted(nats_servers: Callable[..., NatsServer], nodes: Nodes) -> None:
    begun = asyncio.Event()
    go = asyncio.Event()
    ran: list[bytes] = []

    async def handler(call: InboundCall) -> None:
        body = (await call.receive())["body"]
        ran.append(body)
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await call.send({"type": "http.response.body", "body": b"before ", "more_body": True})
        begun.set()
        await go.wait()
        await call.send({"type": "http.response.body", "body": body})

    server = nats_servers(jetstream=False)
    await server.start()
    _, _, owners = await nodes(OWNER, handler, url=server.url)
    edge, _, edges = await nodes(EDGE, url=server.url)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ask(edge, b"running"))
        await begun.wait()
        await server.stop()
        await until(lambda: not owners.is_connected and not edges.is_connected)
        during = group.create_task(ask(edge, b"during"))
        go.set()
        await asyncio.sleep(0.1)
        await server.start()
    assert running.result().body == b"before running"
    assert during.result().body == b"before during"
    assert sorted(ran) == [b"during", b"running"], "never-run-twice"


async def test_a_cut_of_the_edge_alone_loses_nothing(nodes: Nodes) -> None:
    async def handler(call: InboundCall) -> None:
        body = (await call.receive())["body"]
        await asyncio.sleep(0.02)
        await answer(call, body)

    await nodes(OWNER, handler)
    edge, wire, connection = await nodes(EDGE)
    results: list[Heard | Exception] = []

    async def ask_on() -> None:
        for number in range(20):
            try:
                results.append(await ask(edge, str(number).encode()))
            except PeerGone as gone:
                # The owner spoke while nobody was there to hear it.
                results.append(gone)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(ask_on())
        for _ in range(3):
            await asyncio.sleep(0.05)
            await connection.force_reconnect()
            await until(lambda: connection.is_connected)
            wire.reconnected()
    assert len(results) == 200
    assert sum(isinstance(result, Heard) for result in results) >= 100
