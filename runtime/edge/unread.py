"""`read_away`: what a client still sends whose request is refused before it has been read."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from ..wire.http import Receive, Send, declared_size
from ..wire.inbound import Inbound

__all__ = ["READ_AWAY", "read_away"]

BUFFERED: Final = 64 * 1024
"""Bytes that HTTP servers have taken from the socket by themselves."""
READ_AWAY: Final = 16 * 1024 * 1024
"""Bytes that a body may have to be read away. One that says it is larger is left where it is."""
LINGER: Final = 10.0
"""Seconds that it may take."""


def read_away(inbound: Inbound, send: Send) -> Send:
    """`send` for a refusal of `inbound`, which goes out at once. If the body has not been read, it is read and dropped
    before the refusal ends.

    A connection that is closed while something in it is unread is reset (RFC 9112, section 9.6), and a client that
    sends all before it listens never hears why.
    """
    headers = inbound.headers
    unread = inbound.scope["method"] == "POST" and not inbound.body and b"expect" not in headers
    if not (unread and BUFFERED < declared_size(headers) <= READ_AWAY):
        return send

    async def linger(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await _drop_body(inbound.receive)
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
