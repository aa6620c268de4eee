"""The demo server: one tool for each thing a hosted session can do. README, tests and bench use it.

understudy serve understudy.runtime.demo:server
"""

from __future__ import annotations

from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import (
    AcceptedElicitation,
    Elicit,
    ElicitationResult,
    Resolve,
    Sample,
)
from mcp_types import CreateMessageResult, SamplingMessage, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from . import Session

__all__ = ["server"]

READ_ONLY = ToolAnnotations(read_only_hint=True)

MAX_STEPS = 1000
MAX_SECONDS = 600.0

server = MCPServer(
    "understudy-demo",
    instructions="A counter, a memory and a few small tools. What you tell it outlives the process it runs in.",
)


class Whereabouts(BaseModel):
    """Where a call ran, and for whom."""

    node: str
    tenant: str
    session: str


class Name(BaseModel):
    name: str = Field(description="What should I call you?", min_length=1, max_length=100)


@server.tool()
async def increment(session: Session) -> int:
    """Add one to this session's counter; the new count."""
    session.state["count"] = session.state.get("count", 0) + 1
    return session.state["count"]


@server.tool(annotations=READ_ONLY)
async def count(session: Session) -> int:
    """This session's counter, as last saved."""
    return session.state.get("count", 0)


@server.tool()
async def remember(fact: str, session: Session) -> str:
    """Keep a fact for the rest of this session."""
    session.state.setdefault("facts", []).append(fact)
    return "noted"


@server.tool(annotations=READ_ONLY)
async def recall(session: Session) -> list[str]:
    """The facts kept in this session, oldest first."""
    return list(session.state.get("facts", []))


@server.tool(annotations=READ_ONLY)
async def whoami(session: Session) -> Whereabouts:
    """The node that answers, the tenant this session belongs to, and the session's id."""
    return Whereabouts(node=session.node, tenant=session.tenant.tenant, session=session.id)


@server.tool()
async def countdown(
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)],
    seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)],
    ctx: Context,
) -> str:
    """Take `seconds` in all, reporting progress at each of `steps`."""
    for step in range(1, steps + 1):
        await anyio.sleep(seconds / steps)
        await ctx.report_progress(step, steps, f"{steps - step} to go")
    return "lift-off"


async def question() -> Elicit[Name]:
    return Elicit("Who am I talking to?", Name)


@server.tool()
async def ask_name(session: Session, answer: Annotated[ElicitationResult[Name], Resolve(question)]) -> str:
    """Ask the user for a name and keep it."""
    if not isinstance(answer, AcceptedElicitation):
        return "As you wish, stranger."
    session.state["name"] = answer.data.name
    return f"Hello, {answer.data.name}."


async def summary_request(text: str) -> Sample:
    content = TextContent(type="text", text=f"Summarize in one sentence:\n\n{text}")
    return Sample([SamplingMessage(role="user", content=content)], max_tokens=200)


@server.tool()
async def summarize(text: str, summary: Annotated[CreateMessageResult, Resolve(summary_request)]) -> str:
    """Have the client's model say `text` in one sentence."""
    if not isinstance(summary.content, TextContent):
        raise ToolError(f"the client's model answered with {summary.content.type}, not text")
    return summary.content.text


@server.tool()
async def fail() -> str:
    """Fail, as tools sometimes do."""
    raise ToolError("this tool always fails")


@server.tool(annotations=READ_ONLY)
async def echo(text: str) -> str:
    """`text`, unchanged."""
    return text


@server.resource("demo://about", mime_type="text/plain")
def about() -> str:
    """What this server is."""
    return "The demo server of understudy: each session is an actor that survives its process."


@server.prompt()
def introduce(name: str) -> str:
    """A prompt that has the model try the tools."""
    return f"My name is {name}. Remember one thing about me, count to three with increment, then recall it all."
