"""The state handle in a tool's input schema, as the modern era lists it."""

from __future__ import annotations

from typing import Any

from .parameter import SESSION_ARGUMENT

__all__ = ["declares_handle", "with_session_argument"]

_SESSION_SCHEMA = {
    "type": "string",
    "title": "Session",
    "description": "The session handle returned by open_session. The same handle keeps working on the same state.",
    "x-mcp-header": "Session",
}


def with_session_argument(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with the state handle as one more required argument that also travels as `Mcp-Param-Session`."""
    return {
        **schema,
        "properties": {**schema.get("properties", {}), SESSION_ARGUMENT: _SESSION_SCHEMA},
        "required": [*schema.get("required", ()), SESSION_ARGUMENT],
    }


def declares_handle(schema: Any) -> bool:
    """Whether an input schema itself has the state handle: `session`, marked `x-mcp-header: Session`."""
    try:
        return schema["properties"][SESSION_ARGUMENT]["x-mcp-header"] == "Session"
    except (KeyError, TypeError):
        return False
