"""What the demo server does not offer: tools that appear while clients watch, and a call that knows how it ended."""

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("understudy-extras", version="1.0.0")
cancelled: dict[str, anyio.Event] = {}

PATIENCE = 10
"""Seconds that `was_cancelled` waits for what should happen at once."""


@server.tool()
async def add_tool(name: str, ctx: Context) -> str:
    """Offer one more tool, and tell the clients of both eras."""
    if name not in {tool.name for tool in await server.list_tools()}:
        server.add_tool(lambda: name, name=name, description="Says its own name")
    await ctx.session.send_tool_list_changed()
    await ctx.notify_tools_changed()
    return name


@server.tool()
async def wait(key: str, seconds: float, ctx: Context) -> str:
    """Take long, and remember under `key` if the call was cancelled."""
    cancelled[key] = anyio.Event()
    await ctx.report_progress(0, 1)
    try:
        await anyio.sleep(seconds)
    except anyio.get_cancelled_exc_class():
        cancelled[key].set()
        raise
    return "slept well"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def was_cancelled(key: str) -> bool:
    """Whether the `wait` with this key was cancelled, or is before we lose patience."""
    with anyio.move_on_after(PATIENCE):
        await cancelled[key].wait()
    return cancelled[key].is_set()
