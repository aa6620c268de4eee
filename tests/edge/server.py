"""A server that misbehaves on request, and says what became of its calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import AcceptedElicitation
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field
from understudy.runtime import Session

READ_ONLY = ToolAnnotations(read_only_hint=True)


Steps = Annotated[int, Field(ge=0, le=100_000)]


class Name(BaseModel):
    name: str


class Stage:
    """What the tests and the tools of one server tell each other."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.began = asyncio.Event()
        self.noted: Counter[str] = Counter()
        self.runs = 0
        self.running = 0
        self.cancelled = 0
        self.finished = 0

    async def hold(self) -> None:
        self.runs += 1
        self.running += 1
        self.began.set()
        try:
            await self.go_on.wait()
            self.finished += 1
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def make_server(stage: Stage | None = None) -> MCPServer:
    """An `MCPServer` whose tools wait for `stage`."""
    stage = stage or Stage()
    server = MCPServer("stage", version="1", log_level="CRITICAL")

    @server.tool()
    async def increment(session: Session) -> int:
        session.state["count"] = session.state.get("count", 0) + 1
        return session.state["count"]

    @server.tool()
    async def note(key: str, session: Session) -> list[str]:
        """Keep `key` in the session, and count how often it was asked to."""
        stage.noted[key] += 1
        session.state.setdefault("notes", []).append(key)
        return session.state["notes"]

    @server.tool(annotations=READ_ONLY)
    async def notes(session: Session) -> list[str]:
        return session.state.get("notes", [])

    @server.tool(annotations=READ_ONLY)
    async def count(session: Session) -> int:
        return session.state.get("count", 0)

    @server.tool(annotations=READ_ONLY)
    async def echo(value: Any) -> Any:
        return value

    @server.tool()
    async def hold(session: Session) -> int:
        """Change the state, and run until told to go on."""
        session.state["held"] = session.state.get("held", 0) + 1
        await stage.hold()
        return session.state["held"]

    @server.tool()
    async def hold_stateless() -> str:
        await stage.hold()
        return "held"

    @server.tool(annotations=READ_ONLY)
    async def watch() -> str:
        """Run beside others until told to go on."""
        await stage.hold()
        return "watched"

    @server.tool()
    async def report(before: Steps, after: Steps, ctx: Context) -> str:
        """Report progress, wait until told to go on, and report more."""
        for step in range(before):
            await ctx.report_progress(step + 1)
        await stage.hold()
        for step in range(before, before + after):
            await ctx.report_progress(step + 1)
        return "reported"

    @server.tool()
    async def poll_later(ctx: Context) -> str:
        """Have the client poll."""
        await ctx.report_progress(1)
        await ctx.close_sse_stream()
        await stage.hold()
        await ctx.report_progress(2)
        return "polled"

    @server.tool()
    async def ask_name(ctx: Context) -> str:
        answer = await ctx.elicit("Who are you?", Name)
        return answer.data.name if isinstance(answer, AcceptedElicitation) else answer.action

    @server.tool()
    async def announce(ctx: Context) -> str:
        """Tell of changes outside of the call."""
        await ctx.session.send_tool_list_changed()
        await ctx.notify_tools_changed()
        return "announced"

    @server.tool()
    async def touch(uri: str, session: Session, ctx: Context) -> str:
        """Publish that a resource has changed, from a session's tool."""
        await ctx.notify_resource_updated(uri)
        return "touched"

    @server.tool(structured_output=False)
    async def say(what: str) -> Any:
        """Return what JSON can hardly carry."""
        return ODDITIES[what]

    @server.tool()
    async def number(what: str) -> float:
        return float(what)

    @server.tool()
    async def fail_oddly(what: str) -> str:
        raise RuntimeError(str(ODDITIES[what]))

    @server.tool()
    async def sleep(seconds: float) -> str:
        await anyio.sleep(seconds)
        return "slept"

    @server.resource("stage://data", mime_type="text/plain")
    def data() -> str:
        return "data"

    return server


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODDITIES: dict[str, Any] = {
    "surrogate": "a\ud800b",
    "nul": "a\x00b",
    "infinity": float("inf"),
    "nan": float("nan"),
    "bytes": b"\xff",
    "deep": _nested(5000),
    "huge": 10**5000,
}
