"""Servers that say which they are, and a log of their lifespans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from understudy.runtime import Session, TenantContext

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


async def until(condition: Any) -> None:
    """Let the event loop turn until `condition` holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")
