"""The target of the chaos runs: a counter that must never be wrong, and tools that are large, slow or talkative."""

from __future__ import annotations

import asyncio
import hashlib
from functools import lru_cache
from typing import Annotated

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field
from understudy.runtime import Session

READ_ONLY = ToolAnnotations(read_only_hint=True)
IDEMPOTENT = ToolAnnotations(idempotent_hint=True)
LARGEST = 16 * 2**20

Numbers = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=60)]
Size = Annotated[int, Field(ge=0, le=LARGEST)]

server = MCPServer("chaos", version="1", log_level="CRITICAL")


class Whereabouts(BaseModel):
    node: str
    session: str


class Swallowed(BaseModel):
    length: int
    digest: str


@server.tool()
async def increment(session: Session) -> int:
    """Add one to the counter; never to be run twice."""
    session.state["count"] = session.state.get("count", 0) + 1
    return session.state["count"]


@server.tool()
async def slowly_increment(seconds: Annotated[float, Field(ge=0, le=60)], session: Session) -> int:
    """Add one to the counter after a while."""
    session.state["count"] = session.state.get("count", 0) + 1
    await asyncio.sleep(seconds)
    return session.state["count"]


@server.tool(annotations=READ_ONLY)
async def count(session: Session) -> int:
    """The counter, as last saved."""
    return session.state.get("count", 0)


@server.tool(annotations=IDEMPOTENT)
async def mark(name: str, session: Session) -> int:
    """Keep `name`; how many different names are kept. Twice is the same as once."""
    marks = session.state.setdefault("marks", {})
    marks[name] = True
    return len(marks)


@server.tool(annotations=READ_ONLY)
async def whoami(session: Session) -> Whereabouts:
    """The node that answers."""
    return Whereabouts(node=session.node, session=session.id)


@server.tool(annotations=READ_ONLY)
async def echo(text: str, session: Session) -> str:
    """`text`, from wherever the session lives."""
    return text


@server.tool(annotations=READ_ONLY)
async def big(size: Annotated[int, Field(ge=0, le=LARGEST)], session: Session) -> str:
    """`size` characters that a mix-up would show in."""
    return pattern(size)


@server.tool(annotations=READ_ONLY)
async def swallow(argument: str, session: Session) -> Swallowed:
    """What has arrived of `argument`."""
    return Swallowed(length=len(argument), digest=digest(argument))


@server.tool()
async def recite(
    total: Numbers, burst: Numbers, pause: Seconds, large_every: Numbers, large: Size, ctx: Context, session: Session
) -> int:
    """Report progress from 1 to `total`; never to be run twice.

    `pause` seconds after each `burst` of numbers, and `large` characters with each number that `large_every` divides.
    """
    session.state["recited"] = session.state.get("recited", 0) + 1
    return await _recite(total, burst, pause, large_every, large, ctx)


@server.tool(annotations=READ_ONLY)
async def recite_again(
    total: Numbers, burst: Numbers, pause: Seconds, large_every: Numbers, large: Size, ctx: Context, session: Session
) -> int:
    """`recite`, for whoever may run it as often as wanted: it does not keep its session at its node."""
    return await _recite(total, burst, pause, large_every, large, ctx)


async def _recite(total: int, burst: int, pause: float, large_every: int, large: int, ctx: Context) -> int:
    for number in range(1, total + 1):
        await ctx.report_progress(number, total, pattern(large) if number % large_every == 0 else None)
        if number % burst == 0:
            await asyncio.sleep(pause)
    return total


@server.tool()
async def tell(first: Numbers, count: Numbers, pause: Seconds, ctx: Context, session: Session) -> int:
    """Tell the client of updates of so many numbered resources, outside of this call's stream."""
    session.state["told"] = first + count - 1
    for number in range(first, first + count):
        await ctx.session.send_resource_updated(numbered(number))
        await asyncio.sleep(pause)
    return count


@server.resource("chaos://kept")
def kept() -> str:
    """What a client may subscribe to."""
    return "kept"


def numbered(number: int) -> str:
    """The URI that `tell` names."""
    return f"chaos://number/{number}"


@lru_cache(4)
def pattern(size: int) -> str:
    """`size` characters, no two stretches of which are alike. Made once: it is the way that is measured."""
    numbers = "".join(f"{number:09d}," for number in range(size // 10 + 1))
    return numbers[:size]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
