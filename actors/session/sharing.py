"""What is equal between the servers of many sessions is kept once.

A factory makes each session a server of its own. Ten tools with their parsed signatures weigh 200 KB, so tools made
by the same code with the same annotations share their parsed parts; per-server policy objects of the SDK that hold
no state of the server's are replaced by one for all. All of it is treated as immutable.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.server import Settings
from mcp.server.mcpserver.tools import Tool
from mcp.server.request_state import RequestStateBoundary

__all__ = ["share_equal_parts"]

_LIMIT = 4096
_tools: OrderedDict[Any, Tool] = OrderedDict()
_settings: OrderedDict[Any, Settings[Any]] = OrderedDict()


def share_equal_parts(
    server: MCPServer[Any], lowlevel: Server[Any], boundaries: dict[str, RequestStateBoundary]
) -> None:
    """Replace parts of a freshly made `server` by equal ones that are there already. Idempotent.

    `boundaries`: by server name, the requestState boundary that all servers of one tenant use. It is the first
    server's own: the SDK's default seals with a key that only one server object knows, and an explicit policy is the
    same for all that one factory makes for one tenant.
    """
    for tool in server._tool_manager._tools.values():  # pyright: ignore[reportPrivateUsage]
        _share_tool(tool)
    server.settings = _shared_settings(server.settings)
    for index, middleware in enumerate(lowlevel.middleware):
        if type(middleware) is RequestStateBoundary:
            lowlevel.middleware[index] = boundaries.setdefault(lowlevel.name, middleware)


def _share_tool(tool: Tool) -> None:
    fn: Any = getattr(tool.fn, "__wrapped__", tool.fn)
    code = getattr(fn, "__code__", None)
    if code is None:
        return
    try:
        key = (code, tuple(fn.__annotations__.items()), fn.__defaults__, tool.name)
        hash(key)
    except TypeError:
        return
    first = _tools.get(key)
    if first is None:
        _tools[key] = tool
        if len(_tools) > _LIMIT:
            _tools.popitem(last=False)
    elif first is not tool and first.parameters == tool.parameters and first.output_schema == tool.output_schema:
        tool.fn_metadata = first.fn_metadata
        tool.parameters = first.parameters


def _shared_settings(settings: Settings[Any]) -> Settings[Any]:
    try:
        key = (*(repr(value) for name, value in settings if name != "lifespan"), settings.lifespan)
        hash(key)
    except TypeError:
        return settings
    if len(_settings) > _LIMIT:
        _settings.popitem(last=False)
    return _settings.setdefault(key, settings)
