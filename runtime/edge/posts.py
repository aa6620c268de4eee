"""`Posts`: what both eras do with a POST before its call and after."""

from __future__ import annotations

from typing import Final

from mcp_types import INVALID_REQUEST

from ...actors.session.exchange import Exchange
from ...actors.session.wire import Refusal
from ..wire.http import JSON_TYPE, BodyReader, Headers, Receive, Send, answer
from ..wire.media import MediaTypes
from ..wire.patience import Patience
from ..wire.refusals import Refused, with_retry_after

__all__ = ["Posts"]

DEFERRAL: Final = 0.1
"""Seconds that a response may take and still go out as plain JSON without a thought for the connection."""


class Posts:
    """Reads a POST's body, and waits for its outcome."""

    def __init__(self, bodies: BodyReader) -> None:
        self._bodies = bodies
        self._media = MediaTypes()
        self._deferral: Patience[Exchange] = Patience(DEFERRAL, Exchange.nudge)

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The body of a POST of JSON whose client accepts both forms of an answer.

        Raises:
            Refused: The headers will not do.
            BodyTooLarge, BodyTooSlow, EncodedBody, ClientGone: As `BodyReader.read`.
        """
        accepted = self._media.accepts(headers.get(b"accept"))
        if not (accepted.json and accepted.stream):
            text = "Not Acceptable: the client must accept application/json and text/event-stream"
            raise Refused(Refusal(INVALID_REQUEST, text, status=406))
        if not self._media.is_json(headers.get(b"content-type")):
            text = "Unsupported Media Type: the body must be application/json"
            raise Refused(Refusal(INVALID_REQUEST, text, status=415))
        return await self._bodies.read(headers, receive)

    def accepts_stream(self, headers: Headers) -> bool:
        """Whether the client takes server-sent events."""
        return self._media.accepts(headers.get(b"accept")).stream

    def prefers_stream(self, headers: Headers) -> bool:
        """Whether the client would rather have server-sent events than JSON for what is answered at once."""
        return self._media.accepts(headers.get(b"accept")).prefers_stream

    async def first(self, exchange: Exchange) -> None:
        """Wait for the first message or the outcome, `DEFERRAL` at most."""
        if exchange.finished:
            return
        self._deferral.begin(exchange)
        try:
            await exchange.first()
        finally:
            self._deferral.end(exchange)

    async def answer(self, send: Send, exchange: Exchange, *headers: tuple[bytes, bytes]) -> None:
        """Send the outcome of a finished exchange as one JSON body, with the status of its refusal if there is one."""
        assert exchange.outcome is not None
        refusal = exchange.refusal
        if refusal is None:
            await answer(send, 200, exchange.outcome, headers=(JSON_TYPE, *headers))
        else:
            await answer(send, refusal.status, exchange.outcome, headers=with_retry_after(refusal, *headers))
