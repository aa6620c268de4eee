"""`Relay`: a session of the handshake era hears what any tool at any node publishes on its tenant's bus."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cluster.household import Member, household
from cluster.test_bus import ACME, BITS, by_tenant, hub, until
from edge.call import HTTPCall
from edge.client import Client, hosting, put_to_sleep
from edge.server import Stage, make_server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ToolsListChanged
from understudy.actors.session import ANONYMOUS
from understudy.actors.session import relay as relay_module
from understudy.actors.session.relay import message_of, reread_messages
from understudy.runtime import Runtime, Session
from understudy.stores import Address


def factory(stage: Stage) -> Any:
    return lambda tenant: make_server(stage)


SERVERS = pytest.mark.parametrize("server", [make_server, factory])


def relay(node: Member | Runtime) -> Any:
    runtime = node.runtime if isinstance(node, Member) else node
    return runtime._node.relay


def updated(stream: HTTPCall) -> list[str]:
    return [m["params"]["uri"] for m in stream.messages if m["method"] == "notifications/resources/updated"]


def lists(stream: HTTPCall) -> list[str]:
    return [m["method"] for m in stream.messages if m["method"].endswith("/list_changed")]


async def listens(node: Member, *uris: str, tenant: str = ACME, at: Member | None = None) -> tuple[Client, HTTPCall]:
    """A session of `node`, with its standalone stream held `at` another, if any."""
    client = node.client()
    client.headers["authorization"] = tenant
    await client.open()
    stream = await (at or node).same(client).start("GET").started()
    for uri in uris:
        assert (await client.ask("resources/subscribe", {"uri": uri})).result == {}
    return client, stream


async def touch(node: Member, uri: str, tenant: str = ACME) -> None:
    client = node.modern()
    client.headers["authorization"] = tenant
    await client.tool("touch", {"uri": uri, "session": await client.handle()})


@SERVERS
async def test_an_update_at_any_node_is_heard_by_the_session_that_subscribed_to_it(nats_url: str, server: Any) -> None:
    async with household(nats_url, 3, server=server, tenants=by_tenant) as nodes:
        _, stream = await listens(nodes[0], "stage://a", "stage://b", at=nodes[1])
        _, other = await listens(nodes[1], "stage://c")
        for node in nodes:
            await touch(node, "stage://other")
            await touch(node, "stage://a")
        await touch(nodes[2], "stage://c")
        await until(lambda: updated(stream) == ["stage://a"] * 3)
        await until(lambda: updated(other) == ["stage://c"])
        assert lists(stream) == lists(other) == []


@SERVERS
async def test_a_list_change_is_heard_by_every_session_that_listens(nats_url: str, server: Any) -> None:
    async with household(nats_url, 3, server=server, tenants=by_tenant) as nodes:
        streams = [(await listens(node))[1] for node in nodes]
        announcing = nodes[2].modern()
        announcing.headers["authorization"] = ACME
        await announcing.tool("announce")
        await until(lambda: all(lists(stream) == ["notifications/tools/list_changed"] for stream in streams))


async def test_no_wrong_tenant_hears_of_it(nats_url: str) -> None:
    async with household(nats_url, 2, server=factory, tenants=by_tenant) as nodes:
        _, friend = await listens(nodes[0], "stage://a", tenant=ACME)
        _, stranger = await listens(nodes[0], "stage://a", tenant=BITS)
        await touch(nodes[1], "stage://a", tenant=ACME)
        await until(lambda: updated(friend) == ["stage://a"])
        await touch(nodes[1], "stage://a", tenant=BITS)
        await until(lambda: updated(stranger) == ["stage://a"])
        assert updated(friend) == ["stage://a"]


async def test_a_plain_server_takes_subscriptions_in_the_handshake_era() -> None:
    async with hosting(make_server()) as client:
        opening = await client.open()
        assert opening.result["capabilities"]["resources"]["subscribe"] is True


async def test_what_the_author_does_about_subscriptions_stays() -> None:
    deaf = MCPServer("deaf", subscriptions=False)
    async with hosting(deaf) as client:
        opening = await client.open()
        assert not opening.result["capabilities"]["resources"]["subscribe"]
        assert (await client.ask("resources/subscribe", {"uri": "a://b"})).failure["code"] == -32601


async def test_a_bus_of_the_authors_own_is_his(nats_url: str) -> None:
    class Own(InMemorySubscriptionBus):
        pass

    def own(stage: Stage) -> MCPServer:
        return MCPServer("own", subscriptions=Own())

    async with household(nats_url, 2, server=own) as nodes:
        client, stream = await listens(nodes[0])
        await nodes[0].runtime.publish(ToolsListChanged())
        await (
            nodes[0].runtime.session(client.session or "").notify("notifications/message", {"level": "info", "data": 1})
        )
        await until(lambda: stream.messages)
        assert lists(stream) == []
        # What is not the author's to say is heard all the same.
        await nodes[1].runtime.tenant_changed(ANONYMOUS.tenant)
        await until(lambda: "notifications/tools/list_changed" in lists(stream))


async def test_who_unsubscribes_hears_no_more(nats_url: str) -> None:
    async with household(nats_url) as nodes:
        client, stream = await listens(nodes[0], "stage://a", "stage://b")
        await client.ask("resources/unsubscribe", {"uri": "stage://a"})
        await touch(nodes[1], "stage://a")
        await touch(nodes[1], "stage://b")
        await until(lambda: updated(stream))
        assert updated(stream) == ["stage://b"]


async def test_a_session_that_sleeps_hears_all_the_same(nats_url: str) -> None:
    async with household(nats_url, server=factory, tenants=by_tenant) as nodes:
        client, stream = await listens(nodes[0], "stage://a")
        await put_to_sleep(nodes[0].runtime, client.session)
        await touch(nodes[1], "stage://a")
        await until(lambda: updated(stream) == ["stage://a"])
        assert not nodes[0].owns(client.session), "and is not woken by it"


async def test_who_subscribed_before_it_listened_is_told_to_read(nats_url: str) -> None:
    async with household(nats_url) as nodes:
        client = nodes[0].client()
        await client.open()
        await client.ask("resources/subscribe", {"uri": "stage://a"})
        await touch(nodes[1], "stage://a")
        # It has come and gone: what the stream says is not that.
        await until(lambda: hub(nodes[0]).heard == 1)
        stream = await nodes[0].same(client).start("GET").started()
        await until(lambda: updated(stream) == ["stage://a"])
        assert lists(stream) == []


async def test_who_comes_back_at_once_misses_nothing_and_hears_nothing_twice() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        first = await client.same_session().start("GET").started()
        await client.ask("resources/subscribe", {"uri": "stage://a"})
        first.disconnect()
        await first.done()
        await client.tool("touch", {"uri": "stage://a"})
        second = await client.same_session().start("GET").started()
        await second.until(lambda: updated(second) == ["stage://a"])
        await client.tool("touch", {"uri": "stage://a"})
        await second.until(lambda: len(updated(second)) == 2)
        assert relay(client.runtime).stats()["relay_sent_total"] == 2


async def test_a_session_that_moves_is_heard_for_at_its_new_owner(nats_url: str) -> None:
    async with household(nats_url, 2) as nodes:
        client, stream = await listens(nodes[0], "stage://a", at=nodes[1])
        await nodes[0].runtime.cluster.drain()  # type: ignore[union-attr]
        await until(lambda: nodes[1].streams.standalone(address_of(client)) is not None)
        await until(lambda: updated(stream)), "it may have missed something in between"
        before = len(updated(stream))
        await touch(nodes[1], "stage://a")
        await until(lambda: len(updated(stream)) == before + 1)


def address_of(client: Client) -> Address:
    return Address("session", client.session or "")


async def test_where_nobody_listens_nothing_is_kept(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "SWEEP", 0.05)
    async with household(nats_url, 1) as (node,):
        client = node.client()
        await client.open()
        await client.ask("resources/subscribe", {"uri": "stage://a"})
        assert relay(node).stats()["relay_sessions"] == 0
        assert relay(node)._timer is None
        await node.same(client).start("GET").started()
        assert relay(node).stats()["relay_sessions"] == 1
        await client.send("DELETE")
        await until(lambda: relay(node).stats()["relay_sessions"] == 0)
        await until(lambda: relay(node)._timer is None)
        bus = node.runtime._node.servers.bus("")  # type: ignore[union-attr]
        assert len(bus) == 0  # type: ignore[arg-type]


async def test_one_whose_stream_is_gone_is_dropped_by_the_next_update(nats_url: str) -> None:
    async with household(nats_url, 1) as (node,):
        client, _ = await listens(node, "stage://a")
        await client.send("DELETE")
        await touch(node, "stage://a")
        assert relay(node).stats()["relay_sessions"] == 0


async def test_what_the_session_tells_by_itself_too_is_heard_twice_at_most() -> None:
    server = MCPServer("twice")

    @server.tool()
    async def both(session: Session, ctx: Context) -> str:
        await ctx.session.send_resource_updated("stage://a")
        await ctx.notify_resource_updated("stage://a")
        return "told"

    async with hosting(server) as client:
        await client.open()
        stream = await client.same_session().start("GET").started()
        await client.ask("resources/subscribe", {"uri": "stage://a"})
        await client.tool("both")
        await stream.until(lambda: updated(stream) == ["stage://a"] * 2)


async def test_after_a_gap_each_session_is_told_to_read_what_it_has_subscribed_to(nats_url: str) -> None:
    async with household(nats_url, 2) as nodes:
        _, stream = await listens(nodes[0], "stage://a", "stage://b")
        _, plain = await listens(nodes[0])
        hub(nodes[0]).reconnected()
        await until(lambda: len(stream.messages) == 5)
        await until(lambda: len(plain.messages) == 3)
        assert sorted(updated(stream)) == ["stage://a", "stage://b"]
        assert len(set(lists(stream))) == len(set(lists(plain))) == 3


async def test_one_object_hosted_again_goes_on_publishing() -> None:
    server = make_server()
    for _ in range(2):
        async with hosting(server) as client:
            await client.open()
            stream = await client.same_session().start("GET").started()
            await client.ask("resources/subscribe", {"uri": "stage://a"})
            await client.tool("touch", {"uri": "stage://a"})
            await stream.until(lambda: updated(stream) == ["stage://a"])  # noqa: B023


async def test_a_thousand_sessions_that_are_not_concerned_cost_an_update_nothing() -> None:
    async with hosting(make_server()) as client:
        for number in range(200):
            other = client.twin()
            await other.open()
            await other.same_session().start("GET").started()
            await other.ask("resources/subscribe", {"uri": f"stage://{number}"})
        sent = relay(client.runtime).stats()["relay_sent_total"]
        await client.open()
        await client.tool("touch", {"uri": "stage://7"})
        assert relay(client.runtime).stats()["relay_sent_total"] == sent + 1


def test_the_messages_are_those_of_the_handshake_era() -> None:
    assert message_of(ResourceUpdated("a")) == {
        "jsonrpc": "2.0",
        "method": "notifications/resources/updated",
        "params": {"uri": "a"},
    }
    assert len(list(reread_messages(["a", "b"]))) == 5
    assert len(list(reread_messages(["a", "b"], lists=False))) == 2


async def test_burst_to_many_sessions_lets_others_have_their_turn() -> None:
    async with hosting(make_server()) as client:
        for _ in range(300):
            other = client.twin()
            await other.open()
            await other.same_session().start("GET").started()
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        bus = client.runtime._node.servers.bus("")  # type: ignore[union-attr]
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(tick())
            await asyncio.sleep(0)
            before = turns
            await bus.publish(ResourceUpdated("nobody's"))  # type: ignore[union-attr]
            few = turns - before
            before = turns
            await bus.reread()  # type: ignore[union-attr]
            ticking.cancel()
        assert few >= 1
        assert turns - before >= 300
