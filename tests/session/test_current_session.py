"""Where the session can be reached from, and for how long."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio.to_thread
import fastmcp
import mcp
import pytest
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from session.visitor import hosted
from understudy.actors.session import TurnOver
from understudy.runtime import NoSession, Session, current_session


def add_one() -> int:
    """Helper code that has no parameter."""
    state = current_session().state
    state["count"] = state.get("count", 0) + 1
    return state["count"]


def test_there_is_none_outside_of_a_call():
    with pytest.raises(NoSession, match="no session here: this code runs outside a call hosted by understudy"):
        current_session()


def servers() -> dict[str, Any]:
    first = MCPServer("mcpserver")

    @first.tool()
    async def in_helper(session: Session) -> int:
        return add_one()

    @first.tool()
    async def in_nested_helper(session: Session) -> int:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(asyncio.to_thread(add_one))
        return task.result()

    @first.tool()
    def in_thread(session: Session) -> int:
        assert threading.current_thread() is not threading.main_thread()
        assert session is current_session()
        return add_one()

    @first.tool()
    async def in_worker_of_its_own(session: Session) -> int:
        return await anyio.to_thread.run_sync(add_one)

    return {"server": first, "tools": ["in_helper", "in_nested_helper", "in_thread", "in_worker_of_its_own"]}


@pytest.mark.parametrize("tool", servers()["tools"])
async def test_a_tool_and_what_it_calls_have_the_session(era, tool):
    async with hosted(servers()["server"]) as host:
        visitor = await host.visit(era)
        assert [await visitor.ask(tool) for _ in range(3)] == [1, 2, 3]
        await host.sleep(visitor)
        assert await visitor.ask(tool) == 4


async def test_in_the_handshake_era_a_tool_without_the_parameter_has_it_too():
    server = MCPServer("plain")

    @server.tool()
    async def count() -> int:
        return add_one()

    async with hosted(server) as host:
        visitor = await host.visit()
        assert [await visitor.ask("count") for _ in range(2)] == [1, 2]


async def test_in_the_modern_era_a_tool_without_the_parameter_has_none():
    server = MCPServer("plain")

    @server.tool()
    async def count() -> int:
        return add_one()

    @server.tool()
    async def with_session(session: Session) -> str:
        return session.id

    async with hosted(server) as host:
        visitor = await host.visit("modern")
        failure = await visitor.failure("count")
        assert "no session here" in failure
        assert "declare `session: Session` on the tool" in failure


def lowlevel(*, declare: bool) -> Server[Any]:
    """A low-level server; it may declare the state handle itself."""
    handle = {"session": {"type": "string", "x-mcp-header": "Session"}} if declare else {}
    schema: dict[str, Any] = {"type": "object", "properties": handle}

    async def list_tools(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="count", input_schema=schema)])

    async def call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=str(add_one()))])

    return Server("lowlevel", on_list_tools=list_tools, on_call_tool=call_tool)


async def test_a_handler_of_a_lowlevel_server_has_it():
    async with hosted(lowlevel(declare=False)) as host:
        visitor = await host.visit()
        assert [await visitor.ask("count") for _ in range(2)] == ["1", "2"]
        await host.sleep(visitor)
        assert await visitor.ask("count") == "3"


async def test_a_tool_of_a_fastmcp_server_has_it():
    server = fastmcp.FastMCP("fast")

    @server.tool
    async def count() -> int:
        return add_one()

    @server.tool
    def count_in_thread() -> int:
        return add_one()

    async with hosted(server) as host:
        visitor = await host.visit()
        assert await visitor.ask("count") == 1
        assert await visitor.ask("count_in_thread") == 2
        await host.sleep(visitor)
        assert await visitor.ask("count") == 3


async def test_a_custom_method_of_a_lowlevel_server_has_it():
    server = lowlevel(declare=False)

    async def bump(ctx: Any, params: Any) -> dict[str, Any]:
        return {"count": add_one()}

    server.add_request_handler("custom/bump", CallToolRequestParams.__base__, bump)
    async with hosted(server) as host:
        visitor = await host.visit()
        assert (await visitor.request("custom/bump", {}))["count"] == 1
        assert (await visitor.request("custom/bump", {}))["count"] == 2


async def test_two_calls_at_once_have_each_its_own():
    server = MCPServer("two")
    gate = asyncio.Event()

    @server.tool()
    async def who(session: Session) -> list[str]:
        before = current_session().id
        await gate.wait()
        return [before, current_session().id, session.id]

    async with hosted(server) as host:
        visitors = [await host.visit(era) for era in ("handshake", "handshake", "modern")]
        calls = [visitor.call("who") for visitor in visitors]
        await asyncio.sleep(0)
        gate.set()
        for visitor, call in zip(visitors, calls, strict=True):
            assert await call.value() == [visitor.session] * 3


# When the turn is over


async def test_a_session_that_is_used_after_its_turn_says_so(era):
    server = MCPServer("late")
    kept: list[Any] = []

    @server.tool()
    async def keep(session: Session) -> str:
        session.state["count"] = 1
        kept.append(session)
        return "kept"

    async with hosted(server) as host:
        visitor = await host.visit(era)
        await visitor.ask("keep")
        (session,) = kept
        with pytest.raises(
            TurnOver, match=r"session.state was used after tool 'keep' had returned; .* inside the call"
        ):
            session.state["count"] = 2
        with pytest.raises(TurnOver, match=r"session\.live was used after tool 'keep' had returned"):
            _ = session.live
        with pytest.raises(TurnOver, match=r"session.save\(\) was called after tool 'keep' had returned"):
            await session.save()
        assert session.id == visitor.session
        assert "keep" in repr(session)


async def test_a_task_that_outlives_its_call_cannot_change_the_session(era):
    server = MCPServer("late")
    gate = asyncio.Event()
    errors: list[Exception] = []
    async with asyncio.TaskGroup() as background:

        async def later() -> None:
            await gate.wait()
            try:
                add_one()
            except TurnOver as error:
                errors.append(error)

        @server.tool()
        async def begin(session: Session) -> str:
            background.create_task(later())
            return "begun"

        @server.tool()
        async def count(session: Session) -> int:
            return session.state.get("count", 0)

        async with hosted(server) as host:
            visitor = await host.visit(era)
            await visitor.ask("begin")
            gate.set()
            assert await visitor.ask("count") == 0
    assert len(errors) == 1


@pytest.mark.parametrize("failing", ["cancelled", "failed"])
async def test_the_session_of_a_call_that_did_not_return_is_over_too(failing):
    server = MCPServer("late")
    kept: list[Any] = []
    started = asyncio.Event()

    @server.tool()
    async def keep(session: Session) -> str:
        kept.append(session)
        started.set()
        if failing == "failed":
            raise ValueError("no")
        await asyncio.Event().wait()
        return "never"

    async with hosted(server) as host:
        visitor = await host.visit()
        call = visitor.call("keep")
        await started.wait()
        if failing == "cancelled":
            await visitor.cancel(call)
        await call.outcome()
        with pytest.raises(TurnOver):
            _ = kept[0].state


# The same server elsewhere


@pytest.mark.parametrize("hosted_before", [False, True])
async def test_on_another_transport_the_same_server_says_what_is_missing(hosted_before):
    server = servers()["server"]
    if hosted_before:
        async with hosted(server) as host:
            visitor = await host.visit()
            assert await visitor.ask("in_helper") == 1
    async with mcp.Client(server) as client:
        result = await client.call_tool("in_helper", {})
        assert result.is_error
        assert "no session here: this code runs outside a call hosted by understudy" in result.content[0].text
        schema = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}["in_helper"]
        assert schema.get("properties", {}) == {}
