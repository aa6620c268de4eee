"""The target of the scene `tenants`: a server for each tenant, whose tools put a tenant's secrets wherever they can."""

from __future__ import annotations

import hashlib
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from understudy.runtime import Session, TenantContext, current_tenant

READ_ONLY = ToolAnnotations(read_only_hint=True)
KEPT = 5
NEWS = "vault://news/"


def mark_of(tenant: str) -> str:
    """What stands in each secret of the tenant, and in nobody else's."""
    return f"MARK{hashlib.sha256(f'chaos {tenant}'.encode()).hexdigest()[:16]}"


def server_for(tenant: TenantContext) -> MCPServer:
    """Everything in it belongs to `tenant`; what a call says of its tenant must be the same."""
    server = MCPServer("tenants", version="1", instructions=f"the tools of {mark_of(tenant.tenant)}")

    def mark() -> str:
        """By the tenant of the call; that of the server would not show a mix-up of servers."""
        assert current_tenant().tenant == tenant.tenant
        return mark_of(current_tenant().tenant)

    @server.tool()
    async def keep(text: str, ctx: Context, session: Session) -> dict[str, Any]:
        """Keep a secret, and tell who listens; never to be run twice."""
        state = session.state
        state["count"] = state.get("count", 0) + 1
        state["kept"] = [*state.get("kept", []), f"{text} {mark()} of {session.tenant.principal}"][-KEPT:]
        await ctx.notify_resource_updated(NEWS + mark())
        return {"count": state["count"], "kept": state["kept"]}

    @server.tool(annotations=READ_ONLY)
    async def recall(session: Session) -> dict[str, Any]:
        """What is kept, as last saved."""
        return {"count": session.state.get("count", 0), "kept": session.state.get("kept", [])}

    @server.tool()
    async def recite(ctx: Context, session: Session) -> str:
        """A stream of secrets."""
        session.state["recited"] = f"{session.state.get('recited', '')}{mark()}"[-200:]
        for number in range(4):
            await ctx.report_progress(number, 4, f"{mark()} {session.state['recited']}")
        await ctx.session.send_resource_updated(f"{NEWS}{mark()}/{session.tenant.principal}")
        return f"recited {mark()}"

    @server.tool()
    async def learn(ctx: Context, session: Session) -> str:
        """A tool more in the list of this server, named after the secret."""

        def learned() -> str:
            return mark()

        name = f"learned_{mark()}"
        if name not in {tool.name for tool in await server.list_tools()}:
            server.add_tool(learned, name=name)
        await ctx.notify_tools_changed()
        return name

    @server.tool()
    async def whoami() -> str:
        """Without a session."""
        return f"{current_tenant().principal} {mark()}"

    @server.tool()
    async def stash(text: str) -> list[str]:
        """Put the secret where the tenant keeps things, under names that all tenants use; what was there, and is."""
        us = current_tenant()
        before = us.cache.get("latest", mark())
        us.cache.set("latest", f"{text} {mark()}")
        made = await us.cache.get_or_make("made", make)
        await us.files.write("notes/latest.txt", f"{text} {mark()}")
        read = await us.files.read_text("notes/latest.txt")
        assert [entry.name for entry in await us.files.list()] == ["notes"]
        return [before, made, read, await us.secrets.reveal("TOKEN"), us.uri("notes", mark())]

    @server.tool()
    async def book(text: str) -> list[str]:
        """Put the secret into the table that all tenants share; the newest rows there, as this tenant sees it."""
        async with current_tenant().connection() as connection:
            await connection.execute("INSERT INTO vault (text) VALUES ($1)", f"{text} {mark()}")
            rows = await connection.fetch("SELECT tenant, text FROM vault ORDER BY number DESC LIMIT 5")
            parties = await connection.fetchval("SELECT count(DISTINCT tenant) FROM vault")
        assert parties == 1, parties
        return [f"{row['tenant']}: {row['text']}" for row in rows]

    async def make() -> str:
        return f"made for {mark()}"

    @server.resource("vault://secret")
    async def secret() -> str:
        """The same address for all tenants."""
        return f"the secret of {mark()}"

    @server.resource("vault://notes/{name}")
    async def note(name: str) -> str:
        """A note by its name."""
        return f"{name}: {mark()}"

    @server.prompt()
    async def brief() -> str:
        """A prompt with a secret."""
        return f"you work for {mark()}"

    return server
