"""Where sessions get their servers from: what can be hosted, factories, lifespans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any

import anyio
import fastmcp
import pytest
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, ElicitationResult, Resolve
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel
from session.visitor import PATIENCE, Kept, RPCError, Visitor, hosted
from understudy.actors.session.servers import Servers
from understudy.runtime import HostingError, Runtime, Session, TenantContext, current_session

READ_ONLY = ToolAnnotations(read_only_hint=True)
ACME = TenantContext(tenant="acme", principal="ada")
GLOBEX = TenantContext(tenant="globex", principal="bob")


class Log:
    """Lifespans entered and left, by the tasks that did so."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.left: list[str] = []
        self.tasks: list[tuple[Any, Any]] = []

    def lifespan(self, name: str) -> Any:
        @asynccontextmanager
        async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
            task = asyncio.current_task()
            self.entered.append(name)
            # A cancel scope complains if another task leaves it.
            with anyio.CancelScope():
                yield {"name": name}
            self.left.append(name)
            self.tasks.append((task, asyncio.current_task()))

        return lifespan


def server_called(name: str, **options: Any) -> MCPServer:
    server = MCPServer(name, **options)

    @server.tool()
    async def name_of_server(session: Session, ctx: Context) -> str:
        return name

    @server.tool()
    async def count(session: Session) -> int:
        session.state["count"] = session.state.get("count", 0) + 1
        return session.state["count"]

    @server.tool()
    async def lifespan_of_server(session: Session, ctx: Context) -> str:
        return ctx.request_context.lifespan_context["name"]

    @server.tool()
    async def grow(session: Session) -> str:
        """Add a tool to this server."""
        server.add_tool(lambda: "grown", name="grown", description="Only here")
        return "done"

    return server


# What can be hosted


@pytest.mark.parametrize("thing", [None, 7, "demo:server", object(), [MCPServer("listed")]])
def test_what_is_no_server_and_no_factory_is_refused_with_what_is_possible(thing):
    with pytest.raises(
        HostingError, match=r"cannot host .*need an MCPServer, a low-level Server, a FastMCP server, or"
    ):
        Runtime(thing)


def lowlevel(*, declare: bool = False, lookup: bool = False) -> Server[Any]:
    """A low-level server with a tool that counts, and one that reads; it may declare the state handle itself."""
    properties = {"session": {"type": "string", "x-mcp-header": "Session"}} if declare else {}
    schema: dict[str, Any] = {"type": "object", "properties": properties}

    async def list_tools(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        count = Tool(name="count", input_schema=schema)
        read = Tool(name="read", input_schema=schema, annotations=READ_ONLY)
        # In pages: all of them have to be asked for.
        if params is None or params.cursor is None:
            return ListToolsResult(tools=[count], next_cursor="more")
        return ListToolsResult(tools=[read])

    async def call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        state = current_session().state
        if params.name == "count":
            state["count"] = state.get("count", 0) + 1
        if params.name == "read" and (params.arguments or {}).get("spoil"):
            state["count"] = 99
        return CallToolResult(content=[TextContent(type="text", text=str(state.get("count", 0)))])

    return Server(
        "lowlevel",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=(lambda name: schema) if lookup else None,
    )


async def test_a_lowlevel_server_keeps_state_and_its_read_only_tools_only_read():
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        assert await visitor.ask("count") == "1"
        assert await visitor.ask("read") == "1"
        assert "tool 'read' changed session.state" in await visitor.failure("read", spoil=True)
        await host.sleep(visitor)
        assert await visitor.ask("count") == "2"


@pytest.mark.parametrize("lookup", [True, False], ids=["with get_tool_input_schema", "without"])
async def test_a_lowlevel_server_that_declares_the_handle_keeps_state_in_the_modern_era(lookup):
    store = Kept()
    async with hosted(lowlevel(declare=True, lookup=lookup), store=store) as host:
        visitor = Visitor(host, "modern")
        # What the server's tools are, and so that there is `open_session`, is learnt from their listing.
        assert {"count", "read", "open_session", "close_session"} == set(await visitor.tools())
        await visitor.open()
        assert await visitor.ask("count") == "1"
        assert await visitor.ask("read") == "1"
        assert "tool 'read' changed session.state" in await visitor.failure("read", spoil=True)
        await host.sleep(visitor)
        assert await visitor.ask("count") == "2"
    async with hosted(lowlevel(declare=True, lookup=lookup), store=store) as host:
        # Another life of the process, whose first request is a call.
        returning = Visitor(host, "modern", session=visitor.session)
        assert await returning.ask("read") == "2"
        assert await returning.ask("count") == "3"
        stranger = Visitor(host, "modern", session="A" * 22)
        assert "Unknown session" in await stranger.failure("count")
        assert await returning.ask("close_session") == "The session is closed."
        assert "Unknown session" in await returning.failure("count")


async def test_the_first_call_of_a_node_finds_out_that_its_tool_takes_a_handle():
    async with hosted(lowlevel(declare=True)) as host:
        assert "Unknown session" in await Visitor(host, "modern", session="A" * 22).failure("count")
    async with hosted(lowlevel(declare=True)) as host:
        assert "Unknown session" in await Visitor(host, "modern").call("count", stateless=True).failure()
    async with hosted(lowlevel(declare=True)) as host:
        assert await (await host.visit("modern")).ask("count") == "1"


async def test_a_lowlevel_server_without_tools_is_hosted():
    async with hosted(Server("bare")) as host:
        visitor = await host.visit()
        assert await visitor.request("ping") == {}
        with pytest.raises(RPCError, match="Method not found"):
            await visitor.ask("count")


async def test_a_lowlevel_server_that_cannot_list_its_tools_may_still_call_them():
    async def call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        state = current_session().state
        state["count"] = state.get("count", 0) + 1
        return CallToolResult(content=[TextContent(type="text", text=str(state["count"]))])

    async with hosted(Server("secretive", on_call_tool=call_tool)) as host:
        visitor = await host.visit()
        assert [await visitor.ask("anything") for _ in range(2)] == ["1", "2"]


async def test_a_fastmcp_server_keeps_state_and_its_read_only_tools_only_read():
    server = fastmcp.FastMCP("fast")

    @server.tool
    async def count() -> int:
        state = current_session().state
        state["count"] = state.get("count", 0) + 1
        return state["count"]

    @server.tool(annotations={"readOnlyHint": True})
    async def read(spoil: bool = False) -> int:
        if spoil:
            current_session().state["count"] = 99
        return current_session().state.get("count", 0)

    async with hosted(server) as host:
        visitor = await host.visit()
        assert await visitor.ask("count") == 1
        assert await visitor.ask("read") == 1
        assert await visitor.failure("read", spoil=True)
        await host.sleep(visitor)
        assert await visitor.ask("read") == 1
        assert await visitor.ask("count") == 2


# Factories


async def test_a_factory_makes_each_session_a_server_of_its_own(era):
    made: list[str] = []

    def factory(tenant: TenantContext) -> MCPServer:
        made.append(f"server {len(made)}")
        return server_called(made[-1])

    async with hosted(factory) as host:
        one, other = await host.visit(era), await host.visit(era)
        names = {await one.ask("name_of_server"), await other.ask("name_of_server")}
        assert len(names) == 2
        assert await one.ask("count") == 1
        assert await other.ask("count") == 1


async def test_a_tool_added_in_one_session_is_not_in_another():
    async with hosted(lambda tenant: server_called("growing")) as host:
        one, other = await host.visit(), await host.visit()
        await one.ask("grow")
        assert "grown" in await one.tools()
        assert await one.ask("grown") == "grown"
        assert "grown" not in await other.tools()
        assert "Unknown tool: grown" in await other.failure("grown")


async def test_a_tool_added_to_the_one_server_is_in_every_session():
    async with hosted(server_called("shared")) as host:
        one, other = await host.visit(), await host.visit()
        await one.ask("grow")
        assert await other.ask("grown") == "grown"


async def test_a_factory_may_be_async(era):
    async def factory(tenant: TenantContext) -> MCPServer:
        await asyncio.sleep(0)
        return server_called(f"for {tenant.tenant}")

    async with hosted(factory) as host:
        assert await (await host.visit(era)).ask("name_of_server") == "for anonymous"


@pytest.mark.parametrize(
    ("factory", "logged"),
    [
        (lambda tenant: None, "the server factory returned 'NoneType'; it must return an MCPServer"),
        (lambda tenant: "server", "the server factory returned 'str'"),
        (lambda tenant: {}["password"], "the server factory raised KeyError('password')"),
    ],
    ids=["nothing", "nonsense", "raises"],
)
async def test_a_factory_that_fails_is_an_internal_error_and_the_log_says_why(era, factory, logged, caplog):
    async with hosted(factory) as host:
        with pytest.raises(RPCError) as refused:
            await host.visit(era)
        assert refused.value.code == -32603
        assert refused.value.message == "Internal server error"
        assert host.stats("sessions_live") == 0
    assert logged in caplog.text


async def test_a_factory_that_fails_once_does_not_spoil_the_session():
    tries: list[int] = []

    def factory(tenant: TenantContext) -> MCPServer:
        tries.append(1)
        if len(tries) == 2:
            raise RuntimeError("the database is away")
        return server_called(f"server {len(tries)}")

    async with hosted(factory) as host:
        visitor = await host.visit()
        assert await visitor.ask("count") == 1
        await host.sleep(visitor)
        with pytest.raises(RPCError, match="Internal server error"):
            await visitor.ask("count")
        assert await visitor.ask("count") == 2
        assert await visitor.ask("name_of_server") == "server 3"


async def test_a_factory_that_hangs_is_given_up():
    async def factory(tenant: TenantContext) -> Any:
        await asyncio.Event().wait()

    async with Servers(factory, factory_timeout=0.01) as servers:
        with pytest.raises(HostingError, match=r"took longer than 0\.01 s; do slow work in the server's lifespan"):
            await servers.for_session(ACME)
        with pytest.raises(HostingError, match="took longer"):
            await servers.for_surface(ACME)


async def test_a_factorys_own_timeout_is_not_taken_for_ours():
    async def factory(tenant: TenantContext) -> Any:
        raise TimeoutError("the database did not answer")

    async with Servers(factory) as servers:
        with pytest.raises(HostingError, match="the database did not answer"):
            await servers.for_session(ACME)


async def test_a_surface_is_made_once_however_many_ask():
    made: list[TenantContext] = []

    async def factory(tenant: TenantContext) -> MCPServer:
        made.append(tenant)
        await asyncio.sleep(0)
        return server_called("surface")

    async with Servers(factory) as servers:
        hosts = await asyncio.gather(*(servers.for_surface(ACME) for _ in range(5)), servers.for_surface(GLOBEX))
        assert len(set(hosts[:5])) == 1
        assert hosts[5] is not hosts[0]
        assert made == [ACME, GLOBEX]


async def test_after_a_failure_one_of_those_who_wait_for_a_surface_tries_again():
    tries: list[int] = []

    async def factory(tenant: TenantContext) -> MCPServer:
        tries.append(1)
        number = len(tries)
        await asyncio.sleep(0)
        if number == 1:
            raise RuntimeError("the database is away")
        return server_called("surface")

    async with Servers(factory) as servers:
        first, *others = await asyncio.gather(*(servers.for_surface(ACME) for _ in range(4)), return_exceptions=True)
        assert isinstance(first, HostingError)
        assert len(set(others)) == 1
        assert len(tries) == 2


async def test_a_surface_depends_on_what_the_credential_allows():
    made: list[TenantContext] = []

    def factory(tenant: TenantContext) -> MCPServer:
        made.append(tenant)
        return server_called("surface")

    contexts = [
        ACME,
        TenantContext(tenant="acme", principal="eve"),
        TenantContext(tenant="acme", principal="ada", plan="gold"),
        TenantContext(tenant="acme", principal="ada", scopes=frozenset({"write"})),
        GLOBEX,
    ]
    async with Servers(factory) as servers:
        for context in contexts * 2:
            await servers.for_surface(context)
        assert made == contexts


async def test_the_least_used_surface_goes_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("understudy.actors.session.servers.MAX_SURFACES", 2)
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        return server_called("surface", lifespan=log.lifespan(tenant.tenant))

    def tenant(name: str) -> TenantContext:
        return TenantContext(tenant=name, principal="ada")

    async with Servers(factory) as servers:
        for name in ("one", "two", "one", "three"):
            await servers.for_surface(tenant(name))
        await _until(lambda: log.left == ["two"])
        await servers.for_surface(tenant("one"))
        assert log.entered == ["one", "two", "three"]


async def _until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


async def test_a_surface_that_goes_keeps_its_lifespan_while_a_call_runs_on_it(monkeypatch):
    monkeypatch.setattr("understudy.actors.session.servers.MAX_SURFACES", 1)
    log = Log()
    entered, gate = asyncio.Event(), asyncio.Event()

    def factory(tenant: TenantContext) -> MCPServer:
        server = MCPServer("surface", lifespan=log.lifespan(tenant.tenant))

        @server.tool()
        async def hold() -> list[str]:
            entered.set()
            await gate.wait()
            return list(log.left)

        return server

    def resolve(request: Any) -> TenantContext:
        return {"ada": ACME, "bob": GLOBEX}[request.headers["authorization"]]

    async with hosted(factory, tenants=resolve) as host:
        call = Visitor(host, "modern", credential="ada").call("hold", stateless=True)
        await entered.wait()
        await Visitor(host, "modern", credential="bob").tools()
        assert log.entered == ["acme", "globex"]
        gate.set()
        assert await call.value() == []
        await _until(lambda: log.left == ["acme"])


# Rounds of questions in the modern era


class Name(BaseModel):
    name: str


async def ask_for_name() -> Elicit[Name]:
    return Elicit("Who?", Name)


def inquirer() -> MCPServer:
    server = MCPServer("inquirer")

    @server.tool()
    async def greet(session: Session, answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)]) -> str:
        session.state["greeted"] = session.state.get("greeted", 0) + 1
        return f"{answer.data.name} {session.state['greeted']}"

    @server.tool()
    async def greet_stateless(answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)]) -> str:
        return answer.data.name

    return server


@pytest.mark.parametrize("tool", ["greet", "greet_stateless"])
@pytest.mark.parametrize("evicted", [False, True], ids=["", "and its surface gone"])
async def test_a_round_begun_at_one_server_of_a_session_ends_at_another(tool, evicted, monkeypatch):
    monkeypatch.setattr("understudy.actors.session.servers.MAX_SURFACES", 1)

    def resolve(request: Any) -> TenantContext:
        return {"ada": ACME, "bob": GLOBEX}[request.headers["authorization"]]

    async with hosted(lambda tenant: inquirer(), tenants=resolve) as host:
        visitor = await host.visit("modern", credential="ada")
        arguments = {"session": visitor.session} if tool == "greet" else {}
        asked = await visitor.begin("tools/call", {"name": tool, "arguments": arguments}).result()
        (key,) = asked["inputRequests"]
        await host.sleep(visitor)
        if evicted:
            await Visitor(host, "modern", credential="bob").tools()
        answered = {
            "name": tool,
            "arguments": arguments,
            "inputResponses": {key: {"action": "accept", "content": {"name": "Ada"}}},
            "requestState": asked["requestState"],
        }
        expected = "Ada 1" if tool == "greet" else "Ada"
        assert await visitor.begin("tools/call", answered).value() == expected
        # Sealed for one tenant, it opens for no other.
        thief = await host.visit("modern", credential="bob")
        if tool == "greet":
            answered["arguments"] = {"session": thief.session}
        with pytest.raises(RPCError):
            await thief.begin("tools/call", answered).value()


# Lifespans


async def test_the_lifespan_of_a_shared_server_is_entered_once(era):
    log = Log()
    async with hosted(server_called("shared", lifespan=log.lifespan("shared"))) as host:
        for _ in range(2):
            visitor = await host.visit(era)
            assert await visitor.ask("lifespan_of_server") == "shared"
            await host.sleep(visitor)
            assert await visitor.ask("lifespan_of_server") == "shared"
        assert (log.entered, log.left) == (["shared"], [])
    assert log.left == ["shared"]
    assert all(entered is left for entered, left in log.tasks)


async def test_a_factory_made_server_has_its_lifespan_while_its_session_is_in_memory():
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        name = f"life {len(log.entered) + 1}"
        return server_called(name, lifespan=log.lifespan(name))

    async with hosted(factory) as host:
        one, other = await host.visit(), await host.visit()
        assert await one.ask("lifespan_of_server") == "life 1"
        assert await other.ask("lifespan_of_server") == "life 2"
        await host.sleep(one)
        await _until(lambda: log.left == ["life 1"])
        assert await one.ask("lifespan_of_server") == "life 3"
        assert await one.end() == 200
        await _until(lambda: log.left == ["life 1", "life 3"])
    assert log.left == ["life 1", "life 3", "life 2"]
    assert all(entered is left for entered, left in log.tasks)


async def test_a_lifespan_that_fails_is_an_internal_error_and_the_log_says_why(era, caplog):
    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        raise TimeoutError("the database did not answer")
        yield {}

    async with hosted(lambda tenant: server_called("failing", lifespan=lifespan)) as host:
        with pytest.raises(RPCError, match="-32603: Internal server error"):
            await host.visit(era)
    assert "the lifespan of server 'failing' failed at its start: TimeoutError('the database did not answer')" in (
        caplog.text
    )


async def test_the_lifespan_of_a_shared_server_that_fails_keeps_the_runtime_from_starting():
    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        raise TimeoutError("the database did not answer")
        yield {}

    with pytest.raises(TimeoutError, match="the database did not answer"):
        async with hosted(server_called("failing", lifespan=lifespan)):
            pass


async def test_a_lifespan_that_does_not_begin_is_given_up():
    cancelled = asyncio.Event()

    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        yield {}

    async with Servers(lambda tenant: server_called("slow", lifespan=lifespan), lifespan_timeout=0.01) as servers:
        with pytest.raises(HostingError, match=r"not started within 0\.01 s"):
            await servers.for_session(ACME)
        await cancelled.wait()


async def test_a_lifespan_that_nobody_waits_for_any_more_ends():
    entered, left = asyncio.Event(), asyncio.Event()
    go = asyncio.Event()

    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        entered.set()
        try:
            await go.wait()
            yield {}
        finally:
            left.set()

    async with Servers(lambda tenant: server_called("slow", lifespan=lifespan)) as servers:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await servers.for_session(ACME)
        assert entered.is_set()
        async with asyncio.timeout(PATIENCE):
            await left.wait()


async def test_a_lifespan_that_does_not_end_does_not_keep_the_node_from_stopping(monkeypatch, caplog):
    monkeypatch.setattr("understudy.actors.session.servers.STOP_TIMEOUT", 0.01)

    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        yield {}
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE):
        async with Servers(server_called("stubborn", lifespan=lifespan)):
            pass
    assert "the lifespan of server 'stubborn' did not end" in caplog.text


async def test_a_lifespan_that_fails_at_its_end_is_logged(caplog):
    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        yield {}
        raise RuntimeError("could not say goodbye")

    async with hosted(server_called("rude", lifespan=lifespan)) as host:
        assert await (await host.visit()).ask("count") == 1
    assert "the lifespan of server 'rude' failed" in caplog.text
    assert "could not say goodbye" in caplog.text


async def test_a_live_object_that_hangs_when_it_is_closed_does_not_keep_the_lifespan():
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        server = server_called("with browser", lifespan=log.lifespan("browser"))

        @server.tool()
        async def browse(session: Session) -> str:
            async def hang(_: object) -> None:
                await asyncio.Event().wait()

            await session.live.get("browser", object, close=hang)
            return "browsing"

        return server

    async with hosted(factory) as host:
        visitor = await host.visit()
        await visitor.ask("browse")
        host.registry._host.limits = replace(host.registry._host.limits, close_timeout=0.05)
        await host.sleep(visitor)
        await _until(lambda: log.left == ["browser"])
