"""Requirements, the names that `tools_for` gives, and what is kept of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from edge.client import Client, ModernClient, connected
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resources import TextResource
from surfaces.shops import POOR, RICH, bearer, mcpserver, resolve
from understudy.actors.session import surfaces as module
from understudy.actors.session.components import MAX_VIEWS, Components, Filtering
from understudy.actors.session.requirement import Requirement, requirement_of
from understudy.actors.session.servers import Servers
from understudy.actors.session.surface import SURFACE, Surface, checked_names
from understudy.actors.session.surfaces import Surfaces
from understudy.actors.session.tenant_changes import TenantChanges
from understudy.runtime import ConfigurationError, HostingError, Runtime, TenantContext, requires

ADA = TenantContext("acme", "ada", plan="pro", scopes=frozenset({"read"}))


def surface(plan: str | None = None, *scopes: str, names: set[str] | None = None) -> Surface:
    return Surface(plan, frozenset(scopes), None if names is None else frozenset(names))


# Requirements


def test_all_scopes_are_needed_and_one_of_the_plans() -> None:
    needs = Requirement(frozenset({"a", "b"}), frozenset({"pro", "team"}))
    assert needs.met_by("team", frozenset({"a", "b", "c"}))
    assert not needs.met_by("team", frozenset({"a"}))
    assert not needs.met_by("free", frozenset({"a", "b"}))
    assert not needs.met_by(None, frozenset({"a", "b"}))


def test_several_requirements_add_up_whatever_wraps_the_function() -> None:
    @requires(scopes="a")
    @requires(scopes={"b"}, plan={"pro", "team"})
    def function() -> None: ...

    @requires(plan="pro")
    @__import__("functools").wraps(function)
    def wrapper() -> None:
        function()

    assert requirement_of(wrapper) == Requirement(frozenset({"a", "b"}), frozenset({"pro"}))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "asks for nothing"),
        ({"scopes": ()}, "asks for nothing"),
        ({"plan": []}, "asks for nothing"),
        ({"scopes": ["two words"]}, "'two words' is no scope"),
        ({"scopes": [5]}, "5 is no scope"),
        ({"plan": ""}, "a plan is named by a text"),
    ],
)
def test_a_requirement_that_says_nothing_is_refused(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(HostingError, match=said):
        requires(**wanted)


def test_requirements_that_nobody_can_meet_are_refused() -> None:
    with pytest.raises(HostingError, match="plans that no tenant can have both of"):

        @requires(plan="free")
        @requires(plan="pro")
        def function() -> None: ...

    with pytest.raises(HostingError, match="int cannot carry a requirement"):
        requires(plan="pro")(5)


# Names


def test_a_star_stands_for_anything_and_for_nothing_else() -> None:
    seen = surface(names={"search", "report_*", "*.read", "a+b"})
    assert [name for name in ("search", "report_", "report_x\ny", "x.read", "a+b") if not seen.names_tool(name)] == []
    assert [name for name in ("searching", "xreport_1", "xread", "aab", "", 5, None) if seen.names_tool(name)] == []
    assert not seen.names_tool("report_" + "x" * 5000)
    assert all(surface(names={"*"}).names_tool(name) for name in ("", "anything"))
    assert not surface(names=set()).names_tool("anything")


@pytest.mark.parametrize("names", [None, "search", b"search", 5, [5], ["x"] * 10_001])
def test_what_is_no_collection_of_names_is_refused(names: Any) -> None:
    with pytest.raises(HostingError, match="tools_for returned"):
        checked_names(names)


@pytest.mark.parametrize("kind", [Client, ModernClient])
@pytest.mark.parametrize("fault", ["raises", "returns nothing", "hangs"])
async def test_a_tools_for_that_fails_opens_nothing(
    kind: type[Client], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = False

    async def tools_for(tenant: TenantContext) -> Any:
        if faulty and fault == "raises":
            raise RuntimeError("secret of the database")
        if faulty and fault == "hangs":
            await asyncio.Event().wait()
        return None if faulty else ["*"]

    server = MCPServer("shop")
    server.add_tool(lambda: "ran", name="run", description="x")
    async with Runtime(server, tenants=resolve, tools_for=tools_for) as runtime, connected(runtime.app, kind) as client:
        servers = cast("Any", runtime)._node.servers
        servers.surfaces._timeout = 0.05
        client.headers = dict(POOR)
        if kind is Client:
            await client.open()
        client.headers = bearer(scopes={"other"})
        faulty = True
        refused = await client.ask("tools/call", {"name": "run"})
        assert refused.failure["code"] == -32603
        assert b"secret" not in refused.body
        faulty = False
        assert (await client.ask("tools/call", {"name": "run"})).result["content"][0]["text"] == "ran"
    said = {"raises": "tools_for raised", "returns nothing": "tools_for returned", "hangs": "tools_for took longer"}
    assert said[fault] in caplog.text


def test_a_tools_for_that_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tools_for is 'list'"):
        Runtime(MCPServer("shop"), tools_for=cast("Any", ["search"]))


# What is kept


async def test_equal_credentials_ask_once_and_share_one_surface() -> None:
    asked: list[str] = []

    async def tools_for(tenant: TenantContext) -> set[str]:
        asked.append(tenant.principal)
        await asyncio.sleep(0)
        return {"search"}

    changes = TenantChanges()
    found = Surfaces(tools_for, changes, timeout=1.0)
    bob = TenantContext("acme", "bob", plan="pro", scopes=frozenset({"read"}))
    same = await asyncio.gather(*(found.of(ADA) for _ in range(5)), found.of(bob))
    assert asked == ["ada", "bob"]
    assert len(set(same)) == 1
    changes.note("globex")
    assert await found.of(ADA) is same[0]
    assert asked == ["ada", "bob"]
    changes.note("acme")
    await found.of(ADA)
    assert asked == ["ada", "bob", "ada"]
    changes.note(None)
    await found.of(ADA)
    assert len(asked) == 4


async def test_one_who_waits_asks_himself_when_the_first_is_cancelled() -> None:
    gate, asked = asyncio.Event(), 0

    async def tools_for(tenant: TenantContext) -> set[str]:
        nonlocal asked
        asked += 1
        await gate.wait()
        return {"search"}

    found = Surfaces(tools_for, TenantChanges(), timeout=5.0)
    async with asyncio.TaskGroup() as tasks:
        first, second = tasks.create_task(found.of(ADA)), tasks.create_task(found.of(ADA))
        await asyncio.sleep(0)
        first.cancel()
        gate.set()
    assert second.result().names == {"search"}
    assert asked == 2


async def test_what_is_known_of_credentials_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    asked: list[str] = []
    found = Surfaces(lambda tenant: asked.append(tenant.principal) or {tenant.principal}, TenantChanges(), timeout=1.0)
    for name in ("a", "b", "a", "c", "d", "a", "b"):
        await found.of(TenantContext("acme", name))
    assert asked == ["a", "b", "c", "d", "b"]
    assert len(found._known) == 3
    gone = weakref.ref(await found.of(TenantContext("acme", "x")))
    for name in ("a", "b", "c"):
        await found.of(TenantContext("acme", name))
    gc.collect()
    assert gone() is None


def test_changes_that_are_forgotten_put_everything_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.actors.session.tenant_changes.MOST", 2)
    changes = TenantChanges()
    changes.note("a")
    assert changes.outdated("a", 0)
    assert not changes.outdated("b", 0)
    assert not changes.outdated("a", 1)
    for name in ("b", "c"):
        changes.note(name)
    assert changes.outdated("never heard of", 0)
    assert not changes.outdated("never heard of", 1)


def test_views_have_a_bound_and_follow_what_changes() -> None:
    components = Components[object](
        {"open": object(), "shut": requires(plan="pro")(lambda: None)}, Filtering(), tools=True
    )
    assert components.filtering.active
    components.filter()
    assert len(components) == 2
    kept = [surface(None, f"s{number}") for number in range(MAX_VIEWS + 5)]
    for one in kept:
        token = SURFACE.set(one)
        assert list(components) == ["open"]
        assert "shut" not in components
        assert components.get("shut") is None
        with pytest.raises(KeyError):
            components["shut"]
        SURFACE.reset(token)
    assert len(components._views or ()) == MAX_VIEWS
    token = SURFACE.set(surface("pro"))
    assert list(components.items()) == list(zip(components.keys(), components.values(), strict=True))
    assert len(components) == 2
    components["new"] = requires(plan="other")(lambda: None)
    assert "new" not in components
    SURFACE.reset(token)
    assert components.pop("new") is not None
    assert components.pop("new", "gone") == "gone"
    assert components.setdefault("open", None) is not None
    components.update({"more": 1})
    components |= {"most": 2}
    assert list(components) == ["open", "shut", "more", "most"]
    components.clear()
    assert not components


def test_a_server_without_requirements_is_looked_up_as_ever() -> None:
    components = Components[object]({"a": 1}, Filtering())
    assert type(components).get is dict.get
    assert type(components).__getitem__ is dict.__getitem__
    components["b"] = 2
    assert type(components).get is not dict.get


async def test_a_tool_that_is_added_in_a_call_is_hidden_from_whom_it_is_not_for() -> None:
    server = MCPServer("growing")

    @server.tool()
    async def grow() -> str:
        @requires(plan="pro")
        @server.tool()
        async def grown() -> str:
            return "grown"

        server.add_resource(requires(plan="pro")(TextResource(uri="shop://new", name="new", text="new")))
        return "done"

    async with Runtime(server, tenants=resolve) as runtime, connected(runtime.app, Client) as client:
        client.headers = dict(RICH)
        await client.open()
        await client.tool("grow")
        assert await client.tool("grown") == "grown"
        client.headers = dict(POOR)
        refused = (await client.ask("tools/call", {"name": "grown"})).result
        assert refused["content"][0]["text"] == "Unknown tool: grown"
        assert (await client.ask("resources/read", {"uri": "shop://new"})).failure["message"].startswith("Unknown")
        assert (await client.ask("resources/list")).result["resources"] == []


async def test_two_runtimes_of_one_server_object_have_each_their_own_names() -> None:
    server = MCPServer("shop")
    server.add_tool(lambda: "ran", name="run", description="x")
    server.add_tool(lambda: "walked", name="walk", description="x")
    async with (
        Runtime(server, tools_for=lambda tenant: {"walk"}) as narrow,
        Runtime(server) as wide,
        connected(narrow.app, ModernClient) as one,
        connected(wide.app, ModernClient) as other,
    ):
        for _ in range(2):
            assert [tool["name"] for tool in (await one.ask("tools/list")).result["tools"]] == ["walk"]
            assert [tool["name"] for tool in (await other.ask("tools/list")).result["tools"]] == ["run", "walk"]


async def test_a_hidden_tool_is_repeated_after_a_failure_no_more_than_one_that_never_was() -> None:
    poor = TenantContext("acme", "ada")
    rich = TenantContext("acme", "ada", plan="pro", scopes=frozenset({"billing"}))
    for hosted in (mcpserver(), lambda tenant: mcpserver()):
        async with Servers(hosted) as servers:
            assert not await servers.may_repeat(poor, "ledger")
            assert await servers.may_repeat(rich, "ledger")
            assert not await servers.may_repeat(poor, "nowhere")
            assert SURFACE.get() is None


async def test_a_lifespan_that_begins_in_a_call_sees_all_of_its_server() -> None:
    listed: list[int] = []

    def factory(tenant: TenantContext) -> MCPServer:
        @contextlib.asynccontextmanager
        async def lifespan(server: MCPServer) -> AsyncIterator[None]:
            listed.append(len(await server.list_tools()))
            yield

        server = MCPServer("shop", lifespan=lifespan)
        server.add_tool(requires(plan="pro")(lambda: "ran"), name="run", description="x")
        return server

    async with Runtime(factory, tenants=resolve, tools_for=lambda tenant: ()) as runtime, connected(runtime.app) as one:
        one.headers = dict(POOR)
        await one.open()
        assert (await one.ask("tools/list")).result["tools"] == []
    assert listed == [1]
