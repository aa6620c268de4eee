"""A session goes on in a process that runs other code: it has the tools of today and the memory of yesterday."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from restart.load import Told, clients
from support import ServerProcess

Serve = Callable[..., ServerProcess]

HEAD = """
    from typing import Any
    from mcp.server.mcpserver import MCPServer
    from understudy.runtime import Session

    server = MCPServer("changing")

    @server.tool()
    async def state(session: Session) -> dict[str, Any]:
        return {"state": dict(session.state)}
"""
YESTERDAY = """
    @server.tool()
    async def increment(session: Session) -> int:
        session.state["count"] = session.state.get("count", 0) + 1
        session.state["old"] = {"kept": [1, 2]}
        return session.state["count"]
"""
TODAY = """
    @server.tool()
    async def increment(by: int, session: Session) -> int:
        session.state["count"] = session.state.get("count", 0) + by
        return session.state["count"]

    @server.tool()
    async def reset(session: Session) -> str:
        session.state["count"] = 0
        return "reset"
"""


@pytest.mark.parametrize("ending", ["kill", "stop"])
async def test_a_session_lists_the_tools_of_today_and_remembers_yesterday(serve: Serve, tmp_path: Path, ending: str):
    code = tmp_path / "changing.py"
    code.write_text(dedent(HEAD) + dedent(YESTERDAY))
    store = f"sqlite:///{tmp_path}/sessions.db"
    async with (
        serve(f"{code}:server", "--store", store) as server,
        clients(server.url, handshake=1, modern=1) as sessions,
    ):
        for session in sessions:
            assert await session.call("increment") == 1
        code.write_text(dedent(HEAD) + dedent(TODAY))
        await (server.akill() if ending == "kill" else server.astop())
        await server.astart()
        for session in sessions:
            names = {tool["name"] for tool in (await session.request("tools/list"))["tools"]}
            assert {"state", "increment", "reset"} <= names
            with pytest.raises(Told, match="increment"):
                await session.call("increment")
            assert await session.call("increment", by=10) == 11
            assert await session.call("reset") == "reset"
            # A key that no code uses any more stays as it was.
            assert await session.call("state") == {"state": {"count": 0, "old": {"kept": [1, 2]}}}
