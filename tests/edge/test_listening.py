"""`subscriptions/listen`: what a tool publishes is heard by those who asked for it, within its tenant."""

from __future__ import annotations

from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, connected, hosting_modern
from edge.server import make_server
from edge.test_session_ids import by_bearer
from understudy.runtime import TenantContext


def factory(tenant: TenantContext) -> Any:
    return make_server()


HOSTED = pytest.mark.parametrize("hosted", ["object", "factory"])


def host(hosted: str) -> Any:
    return make_server() if hosted == "object" else factory


async def listen(client: ModernClient, *uris: str, tools: bool = True) -> HTTPCall:
    """An open stream that has been acknowledged."""
    wanted = {"toolsListChanged": tools, "resourceSubscriptions": list(uris)}
    call = client.begin("subscriptions/listen", {"notifications": wanted}, id="listen")
    await call.message("notifications/subscriptions/acknowledged")
    assert call.kind == "text/event-stream"
    assert call.header("x-accel-buffering") == "no"
    return call


def heard(call: HTTPCall) -> list[str]:
    return [
        message["params"].get("uri", message["method"].removeprefix("notifications/")) for message in call.messages[1:]
    ]


@HOSTED
async def test_a_list_change_is_heard(hosted: str) -> None:
    async with hosting_modern(host(hosted)) as client:
        stream = await listen(client)
        deaf = await listen(client.twin(), tools=False)
        await client.begin_tool("announce").answered()
        message = await stream.message("notifications/tools/list_changed")
        assert message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "listen"
        assert heard(deaf) == []


@HOSTED
async def test_a_resource_update_from_a_sessions_tool_is_heard_in_both_eras(hosted: str) -> None:
    async with hosting_modern(host(hosted)) as modern, connected(modern.runtime.app) as handshake:
        stream = await listen(modern, "stage://a", "stage://b")
        session = await modern.handle()
        await modern.tool("touch", {"uri": "stage://a", "session": session})
        await modern.tool("touch", {"uri": "stage://other", "session": session})
        await handshake.open()
        await handshake.tool("touch", {"uri": "stage://b"})
        await stream.until(lambda: len(stream.messages) >= 3)
        assert heard(stream) == ["stage://a", "stage://b"]


async def test_nothing_of_another_tenant_is_heard() -> None:
    async with hosting_modern(factory, tenants=by_bearer) as ann, connected(ann.runtime.app) as handshake:
        ann.headers["authorization"] = "Bearer acme/ann"
        bob, eve = ann.twin(authorization="Bearer acme/bob"), ann.twin(authorization="Bearer evil/eve")
        streams = {name: await listen(one, "stage://a") for name, one in (("bob", bob), ("eve", eve))}
        await ann.tool("touch", {"uri": "stage://a", "session": await ann.handle()})
        await ann.begin_tool("announce").answered()
        handshake.headers["authorization"] = "Bearer acme/ann"
        await handshake.open()
        await handshake.tool("touch", {"uri": "stage://a"})
        await streams["bob"].until(lambda: len(streams["bob"].messages) >= 4)
        assert heard(streams["bob"]) == ["stage://a", "tools/list_changed", "stage://a"]
        await eve.tool("touch", {"uri": "stage://a", "session": await eve.handle()})
        await streams["eve"].until(lambda: len(streams["eve"].messages) >= 2)
        assert heard(streams["eve"]) == ["stage://a"], "its own"
        assert len(heard(streams["bob"])) == 3


async def test_where_one_object_serves_all_what_it_publishes_is_everybodys() -> None:
    """One object is one server with one bus, as its author expects. It takes a factory to keep tenants apart."""
    async with hosting_modern(make_server(), tenants=by_bearer) as ann:
        ann.headers["authorization"] = "Bearer acme/ann"
        eve = ann.twin(authorization="Bearer evil/eve")
        stream = await listen(eve, "stage://a", tools=False)
        await ann.tool("touch", {"uri": "stage://a", "session": await ann.handle()})
        await eve.tool("touch", {"uri": "stage://a", "session": await eve.handle()})
        await stream.until(lambda: len(stream.messages) >= 3)
        assert heard(stream) == ["stage://a"] * 2


@HOSTED
async def test_a_listener_that_leaves_is_forgotten(hosted: str) -> None:
    async with hosting_modern(host(hosted)) as client:
        for _ in range(5):
            stream = await listen(client)
            stream.disconnect()
            await stream.done()
        await client.ask("tools/list")
        assert client.runtime.stats()["listening_streams"] == 0


@HOSTED
async def test_listeners_are_let_go_when_the_node_drains(hosted: str) -> None:
    async with hosting_modern(host(hosted)) as client:
        streams = [await listen(client) for _ in range(3)]
        await client.runtime.drain(10)
        for stream in streams:
            await stream.answered()


async def test_the_handshake_era_does_not_listen_so() -> None:
    async with hosting_modern(make_server()) as modern:
        client = Client(modern._connections)
        await client.open()
        call = await client.ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        assert call.failure["code"] == -32601


async def test_those_who_only_listen_take_no_place_from_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.node.MAX_STATELESS_CALLS", 2)
    monkeypatch.setattr("understudy.runtime.node.MAX_LISTENING", 3)
    async with hosting_modern(make_server()) as client:
        streams = [await listen(client.twin()) for _ in range(3)]
        assert (await client.ask("tools/list")).status == 200
        full = await client.twin().begin("subscriptions/listen", {"notifications": {}}, id="listen").answered()
        assert full.status == 503
        assert int(full.header("retry-after") or 0) >= 1
        await client.begin_tool("announce").answered()
        for stream in streams:
            await stream.message("notifications/tools/list_changed")
