"""`Response`: the one HTTP answer that a client gets, though several nodes may have to try for it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from ...actors.session.wire import Refusal, error_message
from ..http import Send
from ..refusals import refuse
from ..sse import READER_PATIENCE

__all__ = ["Interrupted", "Response"]

_STREAM: Final = b"text/event-stream"
END_OF_EVENT: Final = b"\n\n"
COMMENT: Final = b": keep-alive\n\n"
AT_ONCE: Final = 32 * 1024
"""Bytes of a body that no reader has to be waited for."""


class Interrupted(Exception):
    """A JSON answer broke off in the middle: there is nothing that could be sent to mend it."""


class Response:
    """What goes to the client, whichever node writes it.

    A request that waits for its turn may have got its stream opened by an owner that then let go of the session. The
    next owner's answer is fitted into that stream: its head is dropped, and a JSON body becomes the stream's message.
    """

    __slots__ = ("_body", "_fitting", "_lock", "_send", "_whole", "ended", "started", "stream")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.stream = False
        """It is a stream of server-sent events."""
        self.ended = False
        self._fitting = False
        self._body: list[bytes] | None = None
        self._lock: asyncio.Lock | None = None
        self._whole = True
        """What was sent of a stream ends with an event: a node that died may have left half of one."""

    def next_attempt(self) -> None:
        """Another node goes on.

        Raises:
            Interrupted: Part of a JSON answer has been sent.
        """
        if self.started:
            if not self.stream:
                raise Interrupted
            self._fitting = True
            self._body = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            streams = any(name == b"content-type" and value == _STREAM for name, value in message["headers"])
            if self._fitting:
                await self._break_off()
                self._body = None if streams else []
                return
            self.started = True
            self.stream = streams
        elif self._body is not None:
            await self._fit(message)
            return
        else:
            if self.stream and (body := message.get("body")):
                # A lone newline is the end of one that was cut in two there.
                self._whole = body.endswith(END_OF_EVENT) or body == b"\n"
            if not message.get("more_body", False):
                self.ended = True
        await self._out(message)

    async def _break_off(self) -> None:
        """Have what comes next be an event of its own, so that it is not lost with the half of another one."""
        if not self._whole:
            self._whole = True
            await self._out({"type": "http.response.body", "body": END_OF_EVENT, "more_body": True})

    async def _fit(self, message: MutableMapping[str, Any]) -> None:
        assert self._body is not None
        self._body.append(message.get("body", b""))
        if not message.get("more_body", False):
            body, self._body = b"".join(self._body), None
            self.ended = True
            event = b"event: message\ndata: " + body + b"\n\n" if body else b""
            await self._out({"type": "http.response.body", "body": event, "more_body": False})

    async def _out(self, message: MutableMapping[str, Any]) -> None:
        if not self.stream and not message.get("more_body", False) and len(message.get("body", b"")) <= AT_ONCE:
            # Nearly every answer. It fits what servers buffer, and a timer costs more than all else that is done here.
            await self._send(message)
            return
        if self._lock is None:
            async with asyncio.timeout(READER_PATIENCE):
                await self._send(message)
            return
        async with self._lock, asyncio.timeout(READER_PATIENCE):
            await self._send(message)

    def share(self) -> None:
        """Let `comment` be called beside `send`."""
        if self._lock is None:
            self._lock = asyncio.Lock()

    async def comment(self) -> None:
        """Tell whoever is on the way that a silent stream lives."""
        if self.started and self.stream and self._whole and not self.ended:
            await self._out({"type": "http.response.body", "body": COMMENT, "more_body": True})

    async def refuse(self, refusal: Refusal, request_id: Any) -> None:
        """End with an error: as an answer of its own, or as the last message of the stream that has begun.

        Raises:
            Interrupted: Part of a JSON answer has been sent.
        """
        if not self.started:
            self.started = self.ended = True
            await refuse(self._send, refusal, request_id=request_id)
        elif not self.stream:
            raise Interrupted
        elif not self.ended:
            await self._break_off()
            self.ended = True
            event = b""
            if request_id is not None:
                event = b"event: message\ndata: " + error_message(request_id, refusal) + b"\n\n"
            await self._out({"type": "http.response.body", "body": event, "more_body": False})

    async def finish(self) -> None:
        """End a stream that has begun and would go on."""
        if self.started and self.stream and not self.ended:
            self.ended = True
            await self._out({"type": "http.response.body", "body": b"", "more_body": False})

    async def accept(self) -> None:
        """End with 202: what was sent asks for no answer."""
        if not self.started:
            self.started = self.ended = True
            await self._send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
            await self._send({"type": "http.response.body", "body": b""})
