"""`read_away`: what a client still sends whose request is refused before it has been read."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from ..wire.http import Headers, Receive, Scope, Send

__all__ = ["READ_AWAY", "read_away"]

BUFFERED: Final = 64 * 1024
"""Bytes that HTTP servers have taken from the socket by themselves."""
READ_AWAY: Final = 16 * 1024 * 1024
"""Bytes that a body may have to be read away. One that says it is larger is left where it is."""
LINGER: Final = 10.0
"""Seconds that it may take."""


def read_away(scope: Scope, headers: Headers, receive: Receive, send: Send) -> Send:
    """`send` for a refusal of a request whose body has not been read: the refusal goes out at once, and before it ends
    the body is read and dropped.

    A connection that is closed while something in it is unread is reset (RFC 9112, section 9.6), and a client that
    sends all before it listens never hears why.
    """
    declared = headers.get(b"content-length", b"")
    if (
        scope["method"] != "POST"
        or not (declared.isdigit() and len(declared) < 18 and BUFFERED < int(declared) <= READ_AWAY)
        or b"expect" in headers
    ):
        return send

    async def linger(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await _drop_body(receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    return linger


async def _drop_body(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER):
            more = True
            while more:
                message = await receive()
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        # It is closed all the same: who sends so slowly may be reset.
        return
