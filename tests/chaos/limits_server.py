"""The target of the scene `limits`: one tool for each kind of call that a limit counts."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

READ_ONLY = ToolAnnotations(read_only_hint=True)

server = MCPServer("limits", version="1", log_level="CRITICAL")


class Held(BaseModel):
    began: float
    """By the machine's monotonic clock, which all its processes share."""
    ended: float


@server.tool()
async def change() -> str:
    """A call that may change something."""
    return "changed"


@server.tool(annotations=READ_ONLY)
async def look() -> str:
    """A call that changes nothing."""
    return "seen"


@server.tool(annotations=READ_ONLY)
async def hold(seconds: Annotated[float, Field(ge=0, le=120)]) -> Held:
    """Be in flight for a while."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return Held(began=began, ended=time.monotonic())
