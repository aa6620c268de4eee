"""A session whose credential has changed: its server is made anew, and its client told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from edge.client import Client, ModernClient, connected
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from session.servers import Log, until
from surfaces.shops import POOR, RICH, bearer, mcpserver, resolve
from understudy.runtime import Runtime, Session, TenantContext

LISTS = [f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")]


class Shops:
    """A factory whose servers tell for whom they were made."""

    def __init__(self) -> None:
        self.log = Log()
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    def __call__(self, tenant: TenantContext) -> MCPServer:
        name = f"{len(self.log.entered)} {tenant.plan}"
        server = MCPServer("shop", lifespan=self.log.lifespan(name))

        @server.tool()
        async def made_for(ctx: Context) -> str:
            return ctx.request_context.lifespan_context["name"]

        @server.tool()
        async def count(session: Session) -> int:
            session.state["count"] = session.state.get("count", 0) + 1
            return session.state["count"]

        @server.tool(annotations=ToolAnnotations(read_only_hint=True))
        async def hold(ctx: Context) -> str:
            self.entered.set()
            await self.gate.wait()
            assert name not in self.log.left
            return ctx.request_context.lifespan_context["name"]

        return server


async def test_a_session_of_a_factory_gets_another_server_for_another_plan() -> None:
    shops = Shops()
    async with Runtime(shops, tenants=resolve) as runtime, connected(runtime.app) as client:
        client.headers = bearer(plan="free")
        await client.open()
        stream = await client.start("GET").started()
        assert await client.tool("count") == 1
        client.headers = bearer(plan="pro")
        assert await client.tool("count") == 2
        assert await client.tool("made_for") == "1 pro"
        await until(lambda: shops.log.left == ["0 free"])
        assert await client.tool("count") == 3
        assert shops.log.entered == ["0 free", "1 pro"]
        await stream.message(LISTS[-1])
        assert [message["method"] for message in stream.messages] == LISTS
    assert sorted(shops.log.left) == sorted(shops.log.entered)
    assert all(entered is left for entered, left in shops.log.tasks)


async def test_the_old_server_stays_until_its_turns_are_over() -> None:
    shops = Shops()
    async with Runtime(shops, tenants=resolve) as runtime, connected(runtime.app) as client:
        client.headers = bearer(plan="free")
        await client.open()
        held = client.begin_tool("hold")
        await shops.entered.wait()
        client.headers = bearer(plan="pro")
        assert await client.tool("made_for") == "1 pro"
        assert shops.log.left == []
        shops.gate.set()
        assert (await held.answered()).value == "0 free"
        await until(lambda: shops.log.left == ["0 free"])
        assert await client.tool("made_for") == "1 pro"


async def test_credentials_that_take_turns_are_each_served_by_their_own_server() -> None:
    shops = Shops()
    async with Runtime(shops, tenants=resolve) as runtime, connected(runtime.app) as client:
        client.headers = bearer(plan="free")
        await client.open()
        for _ in range(3):
            calls = [client.begin_tool("made_for", headers=bearer(plan=plan)) for plan in ("free", "pro", "free")]
            told = [(await call.answered()).value.split()[1] for call in calls]
            assert told == ["free", "pro", "free"]
        await client.send("DELETE")
        await until(lambda: sorted(shops.log.left) == sorted(shops.log.entered))


async def test_a_factory_that_fails_for_the_new_plan_leaves_the_old_server_to_the_old_one() -> None:
    shops = Shops()

    def factory(tenant: TenantContext) -> MCPServer:
        if tenant.plan == "broken":
            raise RuntimeError("no such plan")
        return shops(tenant)

    async with Runtime(factory, tenants=resolve) as runtime, connected(runtime.app) as client:
        client.headers = bearer(plan="free")
        await client.open()
        refused = await client.begin_tool("count", headers=bearer(plan="broken")).answered()
        assert refused.failure["code"] == -32603
        assert await client.tool("made_for") == "0 free"
        assert await client.tool("count") == 1


async def test_the_client_of_a_shared_server_is_told_when_its_credential_sees_another_surface() -> None:
    async with Runtime(mcpserver(), tenants=resolve) as runtime, connected(runtime.app) as client:
        client.headers = dict(POOR)
        await client.open()
        stream = await client.start("GET").started()
        await client.tool("search", {"term": "x"})
        client.headers = dict(RICH)
        await client.tool("refund", {"order": 1})
        await stream.message(LISTS[-1])
        assert [message["method"] for message in stream.messages] == LISTS


# Subscriptions

HIDDEN = ("shop://ledger", "shop://text", "shop://books/7")
OPEN = ("shop://prices", "shop://articles/tea", "shop://nowhere")


def updates(stream: Any) -> list[str]:
    named = [message for message in stream.messages if message.get("method") == "notifications/resources/updated"]
    return [message["params"]["uri"] for message in named]


def hosted(make: str) -> object:
    return mcpserver() if make == "one server" else lambda tenant: mcpserver()


@pytest.mark.parametrize("make", ["one server", "factory"])
@pytest.mark.parametrize("first", ["stream", "subscription"])
async def test_a_subscription_to_what_is_hidden_is_taken_and_brings_nothing(make: str, first: str) -> None:
    async with Runtime(hosted(make), tenants=resolve) as runtime, connected(runtime.app) as client:
        client.headers = dict(POOR)
        await client.open()
        await client.tool("search", {"term": "x"})
        stream: Any = None
        if first == "stream":
            stream = await client.start("GET").started()
        for uri in (*HIDDEN, *OPEN):
            assert (await client.ask("resources/subscribe", {"uri": uri})).result == {}
        if stream is None:
            stream = await client.start("GET").started()
            await stream.until(lambda: set(updates(stream)) == {*HIDDEN, *OPEN})
        before = len(updates(stream))
        for uri in (*HIDDEN, *OPEN):
            await client.tool("publish", {"uri": uri})
        await stream.until(lambda: "shop://nowhere" in updates(stream)[before:])
        assert updates(stream)[before:] == list(OPEN)
        # As soon as the credential allows it, and no longer than that.
        client.headers = dict(RICH)
        for uri in HIDDEN:
            await client.tool("publish", {"uri": uri})
        await stream.until(lambda: updates(stream)[-1] == HIDDEN[-1])
        assert updates(stream)[before:] == [*OPEN, *HIDDEN]
        client.headers = dict(POOR)
        for uri in (*HIDDEN, OPEN[0]):
            await client.tool("publish", {"uri": uri})
        await stream.until(lambda: updates(stream)[-1] == OPEN[0])
        assert updates(stream)[before:] == [*OPEN, *HIDDEN, OPEN[0]]


@pytest.mark.parametrize("make", ["one server", "factory"])
async def test_who_listens_in_the_modern_era_hears_nothing_of_what_is_hidden(make: str) -> None:
    async with Runtime(hosted(make), tenants=resolve) as runtime, connected(runtime.app, ModernClient) as client:
        wanted = {"notifications": {"resourceSubscriptions": [*HIDDEN, *OPEN]}}
        poor, rich = (client.begin("subscriptions/listen", wanted, headers=who) for who in (POOR, RICH))
        for stream in (poor, rich):
            told = await stream.message("notifications/subscriptions/acknowledged")
            assert told["params"]["notifications"]["resourceSubscriptions"] == [*HIDDEN, *OPEN]
        client.headers = dict(RICH)
        for uri in (*HIDDEN, *OPEN):
            await client.tool("publish", {"uri": uri})
        await rich.until(lambda: len(updates(rich)) == 6)
        await poor.until(lambda: len(updates(poor)) == 3)
        assert updates(poor) == list(OPEN)


async def test_a_handler_of_the_authors_own_does_not_learn_of_a_hidden_subscription() -> None:
    server = mcpserver()
    met: list[str] = []

    async def subscribe(ctx: Any, params: Any) -> Any:
        met.append(params.uri)
        if params.uri not in ("shop://prices", "shop://ledger"):
            raise ValueError(f"nothing at {params.uri}")
        return {}

    from mcp_types import SubscribeRequestParams

    server._lowlevel_server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    async with Runtime(server, tenants=resolve) as runtime, connected(runtime.app, Client) as client:
        client.headers = dict(POOR)
        await client.open()
        bodies = [
            (await client.ask("resources/subscribe", {"uri": uri}, id=1)).body.replace(uri.encode(), b"URI")
            for uri in ("shop://ledger", "shop://ledgex", "shop://ledger")
        ]
        assert bodies[0] == bodies[1] == bodies[2]
        assert "shop://ledger" not in met
        # Who keeps what was asked for keeps it once.
        assert met[0] == met[2]
