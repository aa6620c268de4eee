"""What the demo server does not offer: tools that appear while clients watch, calls that know how they ended, and what
a client may be asked, told, or left to come back for.

What the tools know of each other is in files: the processes behind a balancer have nothing else in common.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import ListRoots, Resolve
from mcp.types import (
    EmptyResult,
    ListRootsResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    ToolAnnotations,
    UnsubscribeRequestParams,
)
from mcp.types import Tool as ListedTool

READ_ONLY = ToolAnnotations(read_only_hint=True)
PATIENCE = 10
"""Seconds that `was_cancelled` waits for what should happen at once."""

folder = Path(os.environ.get("EXTRAS_FOLDER") or tempfile.mkdtemp(prefix="understudy-extras-"))


class Extras(MCPServer):
    async def list_tools(self) -> list[ListedTool]:
        known = {tool.name for tool in await super().list_tools()}
        for path in sorted(folder.glob("tool-*")):  # noqa: ASYNC240 - a handful of files
            name = path.name.removeprefix("tool-")
            if name not in known:
                self.add_tool(lambda name=name: name, name=name, description="Says its own name")
        return await super().list_tools()


server = Extras("understudy-extras", version="1.0.0")


@server.tool()
async def add_tool(name: str, ctx: Context) -> str:
    """Offer one more tool, at every node, and tell the clients of both eras."""
    (folder / f"tool-{name}").touch()
    await ctx.session.send_tool_list_changed()
    await ctx.notify_tools_changed()
    return name


@server.tool()
async def touch(uri: str, ctx: Context) -> str:
    """Tell the clients of both eras that a resource has changed."""
    await ctx.session.send_resource_updated(uri)
    await ctx.notify_resource_updated(uri)
    return uri


@server.tool()
async def wait(key: str, seconds: float, ctx: Context) -> str:
    """Take long, and remember under `key` if the call was cancelled."""
    await ctx.report_progress(0, 1)
    try:
        await anyio.sleep(seconds)
    except anyio.get_cancelled_exc_class():
        (folder / f"cancelled-{key}").touch()
        raise
    return "slept well"


@server.tool(annotations=READ_ONLY)
async def was_cancelled(key: str) -> bool:
    """Whether the `wait` with this key was cancelled, or is before we lose patience."""
    cancelled = folder / f"cancelled-{key}"
    with anyio.move_on_after(PATIENCE):
        while not cancelled.exists():
            await anyio.sleep(0.02)
    return cancelled.exists()


@server.tool()
async def go_and_come_back(ctx: Context) -> str:
    """Have the client poll: what is reported while nobody listens waits for it."""
    await ctx.report_progress(1, 3)
    await ctx.close_sse_stream()
    await ctx.report_progress(2, 3)
    await anyio.sleep(0.3)
    await ctx.report_progress(3, 3)
    return "you are back"


@server.tool(annotations=READ_ONLY)
async def think_aloud(ctx: Context) -> str:
    """Log a message of each of three levels."""
    await ctx.debug("hm")
    await ctx.warning("careful")
    await ctx.error("ouch")
    return "done thinking"


async def which_roots() -> ListRoots:
    return ListRoots()


@server.tool()
async def list_roots(roots: Annotated[ListRootsResult, Resolve(which_roots)]) -> list[str]:
    """Where the client's files are."""
    return [str(root.uri) for root in roots.roots]


async def accept(ctx: Any, params: Any) -> EmptyResult:
    return EmptyResult()


# `MCPServer` has no decorator for the methods that 2026-07-28 removed; the SDK's documentation sends their users here.
lowlevel = server._lowlevel_server
lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)
