"""State handles: how a modern-era client, which has no session on the wire, gets one.

As the specification's "Stateful Tools" recommends: the server offers a tool that opens a session and returns its
handle, and each tool that works on the session takes the handle as an argument.
"""

from __future__ import annotations

from typing import Any, Final

from mcp.server.lowlevel import Server
from mcp_types import SERVER_INFO_META_KEY

from ...stores import Address, AddressError
from .errors import HostingError
from .handle_schema import with_session_argument
from .hosting import HostedServer
from .parameter import SESSION_ARGUMENT
from .session_kind import SESSION

__all__ = [
    "CLOSE_SESSION",
    "OPEN_SESSION",
    "add_session_tools",
    "check_names",
    "handle_address",
    "reserved_schema",
    "text_result",
    "unknown_handle",
]

OPEN_SESSION: Final = "open_session"
CLOSE_SESSION: Final = "close_session"

_OPEN_TOOL: Final[dict[str, Any]] = {
    "name": OPEN_SESSION,
    "title": "Open a session",
    "description": (
        "Open a session and return its handle. Pass the handle as the argument `session` of the tools that take one; "
        "what they remember is kept under it. Call close_session when done."
    ),
    "inputSchema": {"type": "object", "properties": {}},
    "outputSchema": {
        "type": "object",
        "properties": {
            "session": {"type": "string", "description": "The handle."},
            "expires_in_seconds": {"type": "number", "description": "How long it lives after its last use."},
        },
        "required": ["session", "expires_in_seconds"],
    },
    "annotations": {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False},
}
_CLOSE_TOOL: Final[dict[str, Any]] = {
    "name": CLOSE_SESSION,
    "title": "Close a session",
    "description": "Close the session with this handle and forget what was kept under it.",
    "inputSchema": with_session_argument({"type": "object"}),
    "annotations": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True, "openWorldHint": False},
}


def check_names(hosted: HostedServer) -> None:
    """
    Raises:
        HostingError: The server takes sessions and has a tool under one of the two reserved names.
    """
    if not hosted.tools.offer_sessions:
        return
    for name in hosted.tools.names():
        if name in (OPEN_SESSION, CLOSE_SESSION):
            raise HostingError(
                f"server {hosted.name!r} has a tool called {name!r}, which clients of the 2026-07-28 era call to "
                'manage state handles; rename it, or host with eras=("handshake",)'
            )


def reserved_schema(tool: str) -> dict[str, Any] | None:
    """The input schema of one of the two session tools."""
    if tool == OPEN_SESSION:
        return _OPEN_TOOL["inputSchema"]
    return _CLOSE_TOOL["inputSchema"] if tool == CLOSE_SESSION else None


def add_session_tools(hosted: HostedServer, listed: dict[str, Any]) -> dict[str, Any]:
    """A `tools/list` result as the modern era sees it: handles among the arguments, and the tools to get one."""
    tools: list[dict[str, Any]] = [
        {**tool, "inputSchema": hosted.tools.schema(tool["name"])} if hosted.tools.takes_session(tool["name"]) else tool
        for tool in listed["tools"]
    ]
    if listed.get("nextCursor") is None:
        tools += [_OPEN_TOOL, _CLOSE_TOOL]
    return {**listed, "tools": tools}


def handle_address(arguments: object) -> Address | None:
    """The session that a call's arguments name; None if they name none, or it is no handle."""
    handle = arguments.get(SESSION_ARGUMENT) if isinstance(arguments, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(handle, str):
        return None
    try:
        return Address.checked(SESSION, handle)
    except AddressError:
        return None


def text_result(
    server: Server[Any], text: str, *, structured: dict[str, Any] | None = None, is_error: bool = False
) -> dict[str, Any]:
    """A modern-era tool result."""
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": text}],
        "isError": is_error,
        "resultType": "complete",
    }
    if structured is not None:
        result["structuredContent"] = structured
    result["_meta"] = {SERVER_INFO_META_KEY: server.server_info_stamp}
    return result


def unknown_handle(server: Server[Any]) -> dict[str, Any]:
    """The one answer to a handle that is missing, unknown, expired, closed or another's: it names no reason."""
    return text_result(
        server,
        f"Unknown session. Call {OPEN_SESSION} and pass the handle it returns as the argument {SESSION_ARGUMENT!r}.",
        is_error=True,
    )
