"""What a tool keeps of its call in a global is of no use to another party's, while the call runs and after it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from edge.client import Client, ModernClient, hosting, hosting_modern
from edge.test_session_ids import by_bearer
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ElicitRequestFormParams
from understudy.runtime import Session


def careless() -> MCPServer:
    server = MCPServer("careless", log_level="CRITICAL")
    kept: dict[str, Any] = {"held": asyncio.Event(), "done": asyncio.Event()}

    @server.tool()
    async def hold(session: Session, ctx: Context) -> str:
        session.state["owner"] = session.tenant.tenant
        kept.update(session=session, ctx=ctx)
        kept["held"].set()
        await kept["done"].wait()
        return json.dumps(session.state)

    @server.tool()
    async def use_what_was_held() -> str:
        await kept["held"].wait()
        session, ctx = kept["session"], kept["ctx"]
        form = ElicitRequestFormParams(message="?", requested_schema={"type": "object", "properties": {}})
        attempts: dict[str, Callable[[], Any]] = {
            "state": lambda: session.state,
            "live": lambda: session.live,
            "save": lambda: session.save(),
            "notify": lambda: session.notify("notifications/tools/list_changed"),
            "progress": lambda: ctx.report_progress(1, 2),
            "question": lambda: ctx.session.elicit_form(form.message, form.requested_schema, ctx.request_id),
        }
        found: dict[str, str] = {}
        for name, attempt in attempts.items():
            try:
                got = attempt()
                if isinstance(got, Awaitable):
                    await asyncio.wait_for(got, 1)
                found[name] = "worked"
            except Exception as error:
                found[name] = type(error).__name__
        return json.dumps(found)

    @server.tool()
    async def let_go() -> str:
        kept["done"].set()
        return "gone on"

    return server


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_session_that_is_kept_in_a_global_is_of_no_use_to_another_party(era: str) -> None:
    async with (hosting if era == "handshake" else hosting_modern)(careless(), tenants=by_bearer) as client:
        ann, eve, bob = (
            client.twin(authorization=f"Bearer {who}") for who in ("acme/ann", "evil/eve", "acme/bob")
        )  # fmt: skip
        if era == "handshake":
            for each in (ann, eve, bob):
                await each.open()
        arguments = {"session": await ann.handle()} if isinstance(ann, ModernClient) else {}
        holding = ann.begin_tool("hold", arguments, token="ann")
        for other in (eve, bob):
            found = json.loads(await other.tool("use_what_was_held"))
            if era == "modern":
                # There is nobody to ask in this era.
                assert found.pop("question") != "worked"
            assert set(found.values()) == {"WrongTenant"}, found
        # What one party's calls do with each other is its own affair.
        mine = json.loads(await (ann if era == "modern" else await sibling(ann)).tool("use_what_was_held"))
        assert mine["state"] == mine["live"] == mine["save"] == mine["progress"] == "worked"
        await eve.tool("let_go")
        assert json.loads((await holding.answered()).value) == {"owner": "acme"}


async def sibling(client: Client) -> Client:
    """Another session of the same party: of one session, calls that may change it wait for each other."""
    other = client.twin(**client.headers)
    await other.open()
    return other
