"""What a stranger sends to learn of somebody else's session, and what he can tell its answers apart by."""

from __future__ import annotations

from chaos.guests import Guest
from chaos.http import Answer

__all__ = ["Knock", "knock_of", "seen"]

_VOLATILE = ("date", "x-request-id")

Knock = tuple[str, str, bytes]
"""HTTP method, header lines, body."""


def knock_of(stranger: Guest, kind: str, session: str) -> Knock:
    """A request for `session`, of one kind or another."""
    match kind:
        case "get":
            return "GET", stranger.lines(session) + "accept: text/event-stream\r\n", b""
        case "delete":
            return "DELETE", stranger.lines(session), b""
        case "read":
            return "POST", *stranger.post("resources/read", {"uri": "vault://secret"}, session=session, id=7)
        case _:
            return "POST", *stranger.tool("recall", {}, session=session, id=7)


def seen(answer: Answer, session: str) -> tuple[int, dict[str, str], bytes]:
    """What a stranger can tell one answer from another by."""
    headers = {name: value for name, value in answer.headers.items() if name not in _VOLATILE}
    return answer.status, headers, answer.body.replace(session.encode(), b"SESSION")
