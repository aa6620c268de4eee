"""What can be hosted: an `MCPServer`, a low-level `Server`, a FastMCP server."""

from __future__ import annotations

from typing import Any

import fastmcp
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
    ToolAnnotations,
)
from session.visitor import Kept, RPCError, Visitor, hosted
from understudy.runtime import HostingError, Runtime, current_session

READ_ONLY = ToolAnnotations(read_only_hint=True)


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
