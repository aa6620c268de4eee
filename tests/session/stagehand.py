"""A server whose tools wait until the test lets them go on."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.types import ToolAnnotations
from pydantic import BaseModel
from understudy.runtime import Session, current_session

READ_ONLY = ToolAnnotations(read_only_hint=True)


class Name(BaseModel):
    name: str


class Gate:
    """What a waiting tool shares with its test."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()


class Stagehand:
    """Makes servers, and holds the gates that their tools wait at."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self.seen: list[Any] = []

    def gate(self, name: str) -> Gate:
        return self._gates.setdefault(name, Gate())

    def server(self, name: str = "stage") -> MCPServer:
        server = MCPServer(name)

        @server.tool()
        async def increment(session: Session) -> int:
            value = session.state.get("count", 0)
            await asyncio.sleep(0)
            session.state["count"] = value + 1
            return value + 1

        @server.tool(annotations=READ_ONLY)
        async def count(session: Session) -> int:
            return session.state.get("count", 0)

        @server.tool()
        async def hold(gate: str, session: Session, save: bool = False) -> int:
            """Add 100, perhaps save, then wait at the gate."""
            session.state["count"] = session.state.get("count", 0) + 100
            if save:
                await session.save()
                session.state["count"] += 100
            self.gate(gate).entered.set()
            await self.gate(gate).opened.wait()
            return session.state["count"]

        @server.tool(annotations=READ_ONLY)
        async def hold_reading(gate: str, session: Session) -> int:
            self.gate(gate).entered.set()
            await self.gate(gate).opened.wait()
            return session.state.get("count", 0)

        @server.tool()
        async def put(key: str, value: int, gate: str, session: Session, fail: bool = False) -> str:
            """Wait at the gate, then set one key."""
            self.gate(gate).entered.set()
            await self.gate(gate).opened.wait()
            session.state[key] = value
            if fail:
                raise ValueError("on request")
            return "put"

        @server.tool(annotations=READ_ONLY)
        async def state(session: Session) -> dict[str, Any]:
            return {"state": dict(session.state)}

        @server.tool()
        async def ask_name(session: Session, ctx: Context) -> str:
            session.state["asked"] = True
            answer: Any = await ctx.elicit("Who?", Name)
            return answer.data.name

        @server.tool()
        async def echo(text: str) -> str:
            return text

        @server.tool(annotations=READ_ONLY)
        async def scribble(session: Session) -> str:
            session.state["count"] = 1000
            return "written"

        @server.tool(annotations=READ_ONLY)
        async def scribble_deep(session: Session) -> str:
            session.state["facts"].append("three")
            return "written"

        @server.tool(annotations=READ_ONLY)
        async def scribble_and_save(session: Session) -> str:
            await session.save()
            return "saved"

        @server.tool()
        async def begin_facts(session: Session) -> str:
            session.state["facts"] = ["one", "two"]
            return "begun"

        @server.prompt()
        async def careless_prompt() -> str:
            current_session().state["count"] = 1000
            return "written"

        @server.prompt()
        async def deeply_careless_prompt() -> str:
            current_session().state["facts"].append("three")
            return "written"

        @server.prompt()
        async def reading_prompt() -> str:
            return f"count is {current_session().state.get('count', 0)}"

        @server.resource("stage://careless")
        async def careless_resource() -> str:
            current_session().state["count"] = 1000
            return "written"

        @server.resource("stage://deeply-careless")
        async def deeply_careless_resource() -> str:
            current_session().state["facts"].append("three")
            return "written"

        @server.resource("stage://count")
        async def reading_resource() -> str:
            return str(current_session().state.get("count", 0))

        return server
