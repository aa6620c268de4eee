"""One server in three makes, whole or without what some may not see, and who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

import mcp_types as types
from fastmcp import FastMCP
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resources import TextResource
from mcp_types import Completion, ToolAnnotations
from pydantic import Field
from starlette.requests import Request
from understudy.runtime import Session, TenantContext, Unauthenticated, requires

READ_ONLY = ToolAnnotations(read_only_hint=True)
HIDDEN_TOOLS = ("refund", "ledger", "vault", "region")
HIDDEN_URIS = ("shop://ledger", "shop://text", "shop://books/7")
BILLING = requires(scopes={"billing"})
PRO = requires(plan={"pro", "enterprise"})


def resolve(request: Request) -> TenantContext:
    """`Bearer tenant/principal/plan/scope,scope`."""
    scheme, _, told = request.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer":
        raise Unauthenticated
    tenant, principal, plan, scopes = told.split("/")
    return TenantContext(tenant, principal, plan=plan or None, scopes=frozenset(filter(None, scopes.split(","))))


def bearer(tenant: str = "acme", principal: str = "ada", plan: str = "", scopes: Iterable[str] = ()) -> dict[str, str]:
    return {"authorization": f"Bearer {tenant}/{principal}/{plan}/{','.join(sorted(scopes))}"}


POOR = bearer()
RICH = bearer(plan="pro", scopes={"billing"})


def mcpserver(*, whole: bool = True, tools_tagged: bool = True) -> MCPServer:
    """`whole`: with what is hidden from `POOR`; `tools_tagged`: its tools are declared to be."""
    server = MCPServer("shop", version="1", log_level="CRITICAL")
    pro = PRO if tools_tagged else lambda thing: thing
    billing_tool = BILLING if tools_tagged else lambda thing: thing
    billing = BILLING

    @server.tool()
    async def search(term: str) -> str:
        """Find an article."""
        return f"found {term}"

    if whole:

        @server.tool()
        @billing_tool
        async def refund(order: int) -> str:
            return f"refunded {order}"

        @billing_tool
        @server.tool(annotations=READ_ONLY)
        async def ledger() -> str:
            return "the ledger"

    @server.tool()
    async def add(item: str, session: Session) -> list[str]:
        session.state.setdefault("items", []).append(item)
        return session.state["items"]

    if whole:

        @server.tool()
        @pro
        async def vault(key: str, session: Session) -> str:
            session.state["key"] = key
            return key

        @server.tool()
        @pro
        async def region(
            place: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Place"})], ctx: Context
        ) -> str:
            return place

    @server.tool()
    async def nested(name: str, ctx: Context) -> str:
        """Calls another tool, as only a server's own code can."""
        return str(await server.call_tool(name, {}))

    @server.tool()
    async def publish(uri: str, ctx: Context) -> str:
        await ctx.notify_resource_updated(uri)
        return "published"

    @server.resource("shop://prices")
    async def prices() -> str:
        return "cheap"

    if whole:

        @server.resource("shop://ledger")
        @billing
        async def ledger_resource() -> str:
            return "the ledger"

        server.add_resource(billing(TextResource(uri="shop://text", name="text", text="secret")))

        @server.resource("shop://books/{number}")
        @billing
        async def books(number: str) -> str:
            return f"book {number}"

    @server.resource("shop://articles/{name}")
    async def articles(name: str) -> str:
        return f"article {name}"

    @server.prompt()
    async def greet(name: str) -> str:
        return f"Hello {name}"

    if whole:

        @server.prompt()
        @billing
        async def dun(name: str) -> str:
            return f"Pay, {name}"

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion | None:
        known = {"greet": ["ada"], "shop://articles/{name}": ["tea"]}
        if whole:
            known |= {"dun": ["debtor"], "shop://books/{number}": ["7"], "shop://ledger": ["?"]}
        values = known.get(getattr(ref, "name", None) or ref.uri)
        # What it says of one that it does not know has the name in it, as any text may.
        return Completion(values=values if values is not None else [f"{getattr(ref, 'name', None) or ref.uri}?"])

    return server


def fastmcp(*, whole: bool = True, tools_tagged: bool = True) -> FastMCP:
    server = FastMCP("shop", version="1", list_page_size=2)
    billing_tool = BILLING if tools_tagged else lambda thing: thing
    billing = BILLING

    @server.tool
    async def search(term: str) -> str:
        return f"found {term}"

    if whole:

        @server.tool
        @billing_tool
        async def refund(order: int) -> str:
            return f"refunded {order}"

        @server.tool(annotations=READ_ONLY)
        @billing_tool
        async def ledger() -> str:
            return "the ledger"

    @server.tool
    async def add(item: str) -> str:
        return item

    @server.tool
    async def other(item: str) -> str:
        return item

    @server.resource("shop://prices")
    async def prices() -> str:
        return "cheap"

    if whole:

        @server.resource("shop://ledger")
        @billing
        async def ledger_resource() -> str:
            return "the ledger"

        @server.resource("shop://books/{number}")
        @billing
        async def books(number: str) -> str:
            return f"book {number}"

    @server.prompt
    async def greet(name: str) -> str:
        return f"Hello {name}"

    if whole:

        @server.prompt
        @billing
        async def dun(name: str) -> str:
            return f"Pay, {name}"

    @server.completion
    async def complete(ref: Any, argument: Any, context: Any = None) -> list[str]:
        known = {"greet": ["ada"]}
        if whole:
            known |= {"dun": ["debtor"], "shop://books/{number}": ["7"], "shop://ledger": ["?"]}
        return known.get(getattr(ref, "name", None) or ref.uri, ["?"])

    return server


def lowlevel(*, whole: bool = True, page: int | None = None) -> Server[Any]:
    """Tools alone, in words of its own; `page` tools to a page."""
    names = ["search", "refund", "ledger", "add"] if whole else ["search", "add"]

    async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
        begin = int(params.cursor or 0) if params is not None and page is not None else 0
        end = len(names) if page is None else begin + page
        tools = [
            types.Tool(
                name=name,
                input_schema={"type": "object"},
                annotations=READ_ONLY if name == "ledger" else None,
            )
            for name in names[begin:end]
        ]
        return types.ListToolsResult(tools=tools, next_cursor=str(end) if end < len(names) else None)

    async def call_tool(ctx: Any, params: Any) -> types.CallToolResult:
        await asyncio.sleep(0)
        if params.name not in names:
            if params.arguments:
                raise ValueError(f"no such tool: {params.name}")
            text = f"I have never heard of {params.name}"
            return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)
        return types.CallToolResult(content=[types.TextContent(type="text", text=f"ran {params.name}")])

    return Server("shop", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
