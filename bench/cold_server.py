"""What both sides of `understudy bench coldstart` host. Imports nothing of understudy, as a user's server need not."""

from __future__ import annotations

from mcp.server import MCPServer

__all__ = ["TOOL", "server"]

server = MCPServer("bench", log_level="WARNING")

TOOL = "add_3"


async def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


for number in range(10):
    server.add_tool(add, name=f"add_{number}")
