"""The MCP servers that every side hosts: ten tools that do nothing, so that what is left is the host's own cost.

The tools are coroutine functions. The SDK runs a plain function in a worker thread, which costs more than all the rest
of a call and is the same for every host.
"""

from __future__ import annotations

from typing import Any

from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent
from mcp_types import Tool as ToolDeclaration

from ..runtime import Session

__all__ = [
    "ARGUMENTS",
    "INCREMENT",
    "SESSION_TOOL",
    "SHARED_TOOLS",
    "TOOL",
    "lowlevel_server",
    "sdk_kernel",
    "shared_tools_factory",
    "ten_tools",
]

TOOL = "add_3"
SESSION_TOOL = "add_in_session"
INCREMENT = "increment"
ARGUMENTS: dict[str, Any] = {"a": 2, "b": 3}


async def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


async def add_in_session(a: int, b: int, session: Session) -> int:
    """The sum of two numbers, from a tool that is handed its session and leaves it alone."""
    return a + b


async def increment(session: Session) -> int:
    """One more than the last time in this session."""
    session.state["n"] = session.state.get("n", 0) + 1
    return session.state["n"]


SHARED_TOOLS = [Tool.from_function(add, name=f"add_{n}") for n in range(10)]
"""Parsed once and shared by all servers: what a factory that cares for memory does."""


def ten_tools(*, sessions: bool = False) -> MCPServer[Any]:
    """A server of ten tools; with `sessions`, two of them take a `Session`.

    It logs warnings only: the SDK's line per new session would otherwise be part of what is measured.
    """
    tools = list(SHARED_TOOLS)
    if sessions:
        tools[-2:] = [Tool.from_function(add_in_session), Tool.from_function(increment)]
    return MCPServer("bench", tools=tools, log_level="WARNING")


def shared_tools_factory(tenant: object) -> MCPServer[Any]:
    """A server of ten tools of one's own, made of shared parts."""
    return MCPServer("bench", tools=SHARED_TOOLS, log_level="WARNING")


def sdk_kernel(server: MCPServer[Any]) -> Server[Any]:
    """The low-level server inside `server`, by the public way there."""
    server.streamable_http_app()
    return server.session_manager.app


def lowlevel_server() -> Server[Any]:
    """The same ten tools on the SDK's low-level `Server`: no argument models, so the floor under `MCPServer`."""
    listed = [
        ToolDeclaration(name=tool.name, description=tool.description, input_schema=tool.parameters)
        for tool in SHARED_TOOLS
    ]

    async def list_tools(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        arguments = params.arguments or {}
        result = await add(arguments["a"], arguments["b"])
        return CallToolResult(
            content=[TextContent(type="text", text=str(result))], structured_content={"result": result}
        )

    return Server("bench", on_list_tools=list_tools, on_call_tool=call_tool)
