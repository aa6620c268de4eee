"""`AuditEntry`: one line of the audit trail."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Literal

from mcp_types import RequestId

__all__ = ["AuditEntry", "AuditEvent"]

AuditEvent = Literal["opened", "called", "refused", "updated", "ended"]
"""`updated`: the host program has changed a session's state (`runtime.sessions.update`)."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, and what came of it. Holds no arguments, no results, no messages and no credentials."""

    time: float
    """Seconds since the Unix epoch."""
    event: AuditEvent
    outcome: str
    """Of a call: `result`, `tool error`, `error`, `cancelled` or `unknown`. Of a refusal: its HTTP status, or `limit: `
    and the name of the limit that was reached, as for a call whose result was too large. Of a session
    that ended: `ended`, or `gone` where its record was deleted or had expired while it was in memory."""
    node: str
    """Where it happened."""
    tenant: str | None = None
    """None: refused before it was known who asks."""
    principal: str | None = None
    session: str | None = None
    """The first eight characters of the session's id, as in the log; None: no session is concerned."""
    method: str | None = None
    """The JSON-RPC method; for a refusal that came before its body was read, the HTTP method."""
    tool: str | None = None
    request_id: RequestId | None = None
    """The client's own id of the request, up to 64 characters of it."""
    trace: str | None = None
    """`X-Request-Id`, or the id that took its place; the same at every node."""
    forwarded: bool = False
    """The request came in at another node."""

    def line(self) -> bytes:
        """As a line of JSON without what is None."""
        said: dict[str, object] = {}
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None and value is not False:
                said[name] = value
        said["time"] = round(self.time, 6)
        return json.dumps(said).encode() + b"\n"


_NAMES = tuple(field.name for field in fields(AuditEntry))
