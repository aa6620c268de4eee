"""What the protocol keeps for a session, and which of its methods read it, change it, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from .connection import SessionConnection, shared_client_params
from .snapshot import SessionSnapshot

__all__ = ["PROTOCOL_READS", "PROTOCOL_WRITES", "after_handshake", "after_write", "has_room_for", "wants_log"]

PROTOCOL_READS: Final = frozenset(
    {
        "ping",
        "server/discover",
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "completion/complete",
        "subscriptions/listen",
    }
)
"""Methods that only read: they run beside every other turn, and may be repeated."""

PROTOCOL_WRITES: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
"""Methods whose effect is part of the snapshot."""

_LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


def after_handshake(snapshot: SessionSnapshot, connection: SessionConnection) -> SessionSnapshot:
    """`snapshot` with what `initialize` has settled on `connection`, whose client parameters become the shared ones."""
    params = connection.client_params
    assert params is not None
    spelled = params.model_dump_json(by_alias=True, exclude_none=True).encode()
    connection.client_params = shared_client_params(spelled)
    return replace(snapshot, protocol_version=connection.protocol_version, client=spelled)


def after_write(snapshot: SessionSnapshot, method: str, params: Mapping[str, Any] | None) -> SessionSnapshot:
    """`snapshot` after a method of `PROTOCOL_WRITES` that the server has accepted."""
    params = params or {}
    if method == "logging/setLevel":
        return replace(snapshot, log_level=params.get("level"))
    uri = params.get("uri")
    if not isinstance(uri, str):
        return snapshot
    others = tuple(known for known in snapshot.subscriptions if known != uri)
    return replace(snapshot, subscriptions=(*others, uri) if method == "resources/subscribe" else others)


def has_room_for(snapshot: SessionSnapshot, uri: object, limit: int) -> bool:
    """Whether the session may subscribe to `uri`: it does already, or has fewer than `limit` subscriptions."""
    return len(snapshot.subscriptions) < limit or uri in snapshot.subscriptions


def wants_log(snapshot: SessionSnapshot, params: Mapping[str, Any] | None) -> bool:
    """Whether a log message is at or above the level that the client has set, if it has."""
    level, threshold = (params or {}).get("level"), snapshot.log_level
    if threshold not in _LOG_LEVELS or level not in _LOG_LEVELS:
        return True
    return _LOG_LEVELS.index(level) >= _LOG_LEVELS.index(threshold)
