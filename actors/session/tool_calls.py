"""`tools/call` of an `MCPServer`, without the context object where the tool does not ask for one.

The SDK's handler builds a pydantic `Context` for every call and passes it through three layers; for a quick tool that
is a tenth of the call. A tool that takes no context and no resolved parameters never sees it, so its `Tool.run` is
called at once. Everything else, and every server whose author has put a handler of their own in between, goes the
SDK's way.
"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, CallToolResult, InputRequiredResult, TextContent
from pydantic import ValidationError

__all__ = ["shorten_tool_calls"]

# The SDK's own logger: what it says of a tool that fails stays where its users look for it.
logger = logging.getLogger("mcp.server.mcpserver.server")

_UNSEEN: Final[Context[Any, Any]] = Context()


def shorten_tool_calls(server: MCPServer[Any], lowlevel: Server[Any], tools: dict[str, Tool]) -> None:
    """Put the short way before the SDK's handler, if that is what the server has."""
    entry = lowlevel.get_request_handler("tools/call")
    if entry is None or not _is_plain(server, entry.handler):
        return
    whole_way = entry.handler

    async def call_tool(
        ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        tool = tools.get(params.name)
        if tool is None or tool.context_kwarg is not None or tool.resolved_params or type(tool) is not Tool:
            return cast("CallToolResult | InputRequiredResult", await whole_way(ctx, params))
        try:
            return await tool.run(params.arguments or {}, _UNSEEN, convert_result=True)
        except MCPError:
            raise
        except Exception as error:
            _log_failure(params.name, error)
            return CallToolResult(content=[TextContent(type="text", text=str(error))], is_error=True)

    lowlevel.add_request_handler("tools/call", CallToolRequestParams, call_tool)


def _is_plain(server: MCPServer[Any], handler: object) -> bool:
    """Whether nobody has overridden or wrapped what the short way leaves out."""
    kind = type(server)
    return (
        getattr(handler, "__func__", None) is MCPServer._handle_call_tool  # pyright: ignore[reportPrivateUsage]
        and kind.call_tool is MCPServer.call_tool
        and "call_tool" not in server.__dict__
    )


def _log_failure(name: str, error: Exception) -> None:
    """As `MCPServer._handle_call_tool` does."""
    if not isinstance(error, ToolError) or isinstance(error, UnexpectedToolError):
        logger.error("Tool %r raised an unexpected exception", name, exc_info=error)
    elif isinstance(error.__cause__, ValidationError):
        # Field names only: the rejected values are the caller's data.
        fields = sorted({".".join(str(part) for part in fault["loc"]) for fault in error.__cause__.errors()})
        logger.info("Tool %r rejected arguments: %r", name, fields)
    else:
        logger.info("Tool %r failed: %r", name, str(error))
