"""What came of a call, in one word: the same in the audit trail and in the metrics."""

from __future__ import annotations

from typing import Any, Final, Literal

from mcp.server.streamable_http import REQUEST_CANCELLED

from ...actors.session.wire import SERVER_BUSY, SESSION_NOT_FOUND, Refusal

__all__ = ["IN_DOUBT", "Outcome", "is_unknown", "outcome_of"]

Outcome = Literal["result", "tool error", "error", "cancelled", "unknown", "refused"]

IN_DOUBT: Final = {"outcome": "unknown"}
"""`data` of the error for what may have run."""
_TURNED_AWAY = frozenset((401, 403, 429, 503))


def outcome_of(refusal: Refusal | None, result: dict[str, Any] | None) -> Outcome:
    """`refusal` and `result` as the call's exchange and its turn left them. `refused`: it has not run."""
    if refusal is None:
        return "tool error" if result is None or result.get("isError") else "result"
    if refusal.code == REQUEST_CANCELLED:
        return "cancelled"
    if is_unknown(refusal):
        return "unknown"
    if refusal.code in (SERVER_BUSY, SESSION_NOT_FOUND) or refusal.status in _TURNED_AWAY:
        return "refused"
    return "error"


def is_unknown(refusal: Refusal) -> bool:
    """Whether it is for a call that may have run."""
    return isinstance(refusal.data, dict) and refusal.data.get("outcome") == "unknown"  # pyright: ignore
