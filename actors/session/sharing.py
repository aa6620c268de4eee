"""What is equal between the servers of many sessions is kept once.

A factory makes each session a server of its own. Ten tools with their parsed signatures weigh 200 KB, so tools made
by the same code with the same annotations and defaults share their parsed parts; per-server policy objects of the SDK
that hold no state of the server's are replaced by one for all. All of it is treated as immutable, and goes with the
last server that uses it.
"""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.server import Settings
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp.server.request_state import RequestStateBoundary

__all__ = ["share_equal_parts"]

# Weak: what a tenant's factory closed over must not stay in module scope when its sessions are gone.
_metadata: WeakValueDictionary[Any, FuncMetadata] = WeakValueDictionary()
_parameters: WeakKeyDictionary[type, dict[str, Any]] = WeakKeyDictionary()
_settings: WeakValueDictionary[Any, Settings[Any]] = WeakValueDictionary()


def share_equal_parts(
    server: MCPServer[Any], lowlevel: Server[Any], boundaries: dict[str, RequestStateBoundary]
) -> None:
    """Replace parts of a freshly made `server` by equal ones that are there already. Idempotent.

    `boundaries`: by server name, the requestState boundary that all servers of one tenant use. It is the first
    server's own: the SDK's default seals with a key that only one server object knows, and an explicit policy is the
    same for all that one factory makes for one tenant.
    """
    # Not by way of the call that the server is made in, which may see only some of them.
    for tool in dict[str, Tool].values(server._tool_manager._tools):  # pyright: ignore[reportPrivateUsage]
        _share_tool(tool)
    server.settings = _shared_settings(server.settings)
    for index, middleware in enumerate(lowlevel.middleware):
        if type(middleware) is RequestStateBoundary:
            lowlevel.middleware[index] = boundaries.setdefault(lowlevel.name, middleware)


def _share_tool(tool: Tool) -> None:
    # What the SDK reads the signature of.
    fn: Any = inspect.unwrap(tool.fn)
    try:
        annotations: dict[str, Any] = fn.__annotations__
        by_name: dict[str, Any] = fn.__kwdefaults__ or {}
        key = (fn.__code__, tool.name, tuple(annotations.items()), fn.__defaults__, tuple(by_name.items()))
        hash(key)
    except (AttributeError, TypeError):
        return
    own = tool.fn_metadata
    first = _metadata.get(key)
    parameters = _parameters.get(first.arg_model) if first is not None else None
    if first is None or parameters is None:
        _metadata[key] = own
        _parameters[own.arg_model] = tool.parameters
    elif first is not own and parameters == tool.parameters and first.output_schema == own.output_schema:
        tool.fn_metadata = first
        tool.parameters = parameters


def _shared_settings(settings: Settings[Any]) -> Settings[Any]:
    try:
        key = (*(repr(value) for name, value in settings if name != "lifespan"), settings.lifespan)
        return _settings.setdefault(key, settings)
    except TypeError:
        return settings
