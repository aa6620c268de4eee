"""What `understudy bench streams` hosts, on every side: a server whose tool tells of its progress."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

__all__ = ["TELL", "TOLD", "Pace", "server", "step", "talkative_server", "tell_arguments"]

TELL = "tell"
TOLD = "told"

Pace = Literal["one by one", "in a burst"]
"""How the tool sends its events. "one by one": after each the loop turns once, so that each event travels alone, as
those of a tool do that works in between. "in a burst": one after the other without a pause, as those of a loop do."""


def tell_arguments(events: int, pace: Pace) -> dict[str, Any]:
    """The arguments of a call that sends `events` progress notifications."""
    return {"events": events, "pause": pace == "one by one"}


def step(number: int) -> str:
    """What the event of this number says."""
    return f"step {number}"


def talkative_server() -> MCPServer[Any]:
    """A server with the tools `tell` and `told`. It logs warnings only."""
    over = 0

    async def tell(events: int, pause: bool, ctx: Context[Any]) -> int:
        """Report progress so many times; the number of the last report."""
        nonlocal over
        for number in range(1, events + 1):
            await ctx.report_progress(number, events, step(number))
            if pause:
                await asyncio.sleep(0)
        over += 1
        return events

    async def told() -> int:
        """How many calls of `tell` are over, in all sessions of this process."""
        return over

    made: MCPServer[Any] = MCPServer("talkative", log_level="WARNING")
    made.add_tool(tell, name=TELL)
    made.add_tool(told, name=TOLD)
    return made


server = talkative_server()
"""For `understudy serve understudy.bench.talkative:server`."""
