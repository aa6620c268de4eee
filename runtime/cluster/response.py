"""`Response`: the one HTTP answer that a client gets, though several nodes may have to try for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from ...actors.session.wire import Refusal, error_message
from ..edge.sse import READER_PATIENCE
from ..wire.http import Send
from ..wire.refusals import refuse
from .whole_events import WholeEvents

__all__ = ["Interrupted", "Response"]

_STREAM: Final = b"text/event-stream"
COMMENT: Final = b": keep-alive\n\n"
AT_ONCE: Final = 32 * 1024
"""Bytes of a body that no reader has to be waited for."""


class Interrupted(Exception):
    """The answer broke off where nothing can be sent to mend it. The connection is closed, for the client to see it."""


class Response:
    """What goes to the client, whichever node writes it.

    A request that waits for its turn may have got its stream opened by an owner that then let go of the session. The
    next owner's answer is fitted into that stream: its head is dropped, and a JSON body becomes the stream's message.
    Where the stream itself is resumed at another owner, its head is dropped too (`resume`).
    """

    __slots__ = (
        "_attached",
        "_body",
        "_events",
        "_lock",
        "_send",
        "_whole",
        "ended",
        "refused",
        "started",
    )

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.ended = False
        self.refused = 0
        """The status with which the last `resume` was refused; 0 if it was not."""
        self._attached: Callable[[], None] | None = None
        self._whole = False
        self._body: list[bytes] | None = None
        self._lock: asyncio.Lock | None = None
        self._events: WholeEvents | None = None

    @property
    def stream(self) -> bool:
        """It is a stream of server-sent events."""
        return self._events is not None

    @property
    def last_id(self) -> bytes | None:
        """The id of the last event that the client has got whole; None if there is none to resume from."""
        return self._events.last_id if self._events is not None else None

    def next_attempt(self) -> None:
        """Another node goes on. What of an event is not out yet is dropped.

        Raises:
            Interrupted: Part of a JSON answer has been sent.
        """
        self._attached = None
        self.refused = 0
        if self.started:
            if self._events is None:
                raise Interrupted("a JSON answer broke off in the middle")
            self._body = None
            self._events.break_off()

    def again(self) -> None:
        """The next attempt has the request from its beginning: its events have nothing to do with those before."""
        if self._events is not None:
            self._events.last_id = None

    def resume(self, attached: Callable[[], None], *, whole: bool = False) -> None:
        """The next attempt is to go on with the stream, or, if `whole`, to give it from its beginning. `attached` is
        called once it does.

        Any other answer than a stream is dropped, and leaves its status in `refused`. `send` raises `Interrupted` where
        the client has got a part of an event, of which the rest cannot be had: it resumes by itself then.
        """
        self._attached = attached
        self._whole = whole

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI's send."""
        events = self._events
        if message["type"] == "http.response.start":
            streams = any(name == b"content-type" and value == _STREAM for name, value in message["headers"])
            if events is None:
                if self._attached is not None and not await self._goes_on(streams, message["status"]):
                    return
                self.started = True
                if streams:
                    self._events = WholeEvents()
            else:
                await self._go_on(events, streams, message["status"])
                return
        elif self.refused:
            return
        elif events is None:
            if not message.get("more_body", False):
                self.ended = True
        elif self._body is not None:
            await self._fit(message)
            return
        else:
            body = message.get("body", b"")
            more = message.get("more_body", False)
            ready = events.pass_on(body) if body else b""
            if not more:
                self.ended = True
                ready += events.rest()
            elif body and not ready:
                return
            if ready is not body:
                message = {"type": "http.response.body", "body": ready, "more_body": more}
        await self._out(message)

    async def _go_on(self, events: WholeEvents, streams: bool, status: int) -> None:
        """The head of another node's answer, which goes into the stream that has begun."""
        if self._attached is None:
            await self._break_off(events)
            self._body = None if streams else []
        else:
            await self._goes_on(streams, status)

    async def _goes_on(self, streams: bool, status: int) -> bool:
        """Whether it is the stream that was asked for with `resume`, and no refusal."""
        attached, self._attached = self._attached, None
        if not streams or status != 200:
            self.refused = status
            return False
        if self._events is not None and self._events.partial:
            if not self._whole:
                raise Interrupted("an event too large to be kept back broke off in the middle")
            await self._break_off(self._events)
        assert attached is not None, "a stream that is resumed has somebody to be told"
        attached()
        return True

    async def _break_off(self, events: WholeEvents) -> None:
        """Have what comes next be an event of its own, so that it is not lost with the half of another one."""
        if events.partial:
            await self._out({"type": "http.response.body", "body": events.void(), "more_body": True})

    async def _fit(self, message: MutableMapping[str, Any]) -> None:
        assert self._body is not None
        self._body.append(message.get("body", b""))
        if not message.get("more_body", False):
            body, self._body = b"".join(self._body), None
            self.ended = True
            event = b"event: message\ndata: " + body + b"\n\n" if body else b""
            await self._out({"type": "http.response.body", "body": event, "more_body": False})

    async def _out(self, message: MutableMapping[str, Any]) -> None:
        if self._events is None and not message.get("more_body", False) and len(message.get("body", b"")) <= AT_ONCE:
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
        if self._events is not None and not self._events.partial and not self.ended:
            await self._out({"type": "http.response.body", "body": COMMENT, "more_body": True})

    async def refuse(self, refusal: Refusal, request_id: Any) -> None:
        """End with an error: as an answer of its own, or as the last message of the stream that has begun.

        Raises:
            Interrupted: Part of a JSON answer has been sent.
        """
        if not self.started:
            self.started = self.ended = True
            await refuse(self._send, refusal, request_id=request_id)
        elif self._events is None:
            raise Interrupted("a JSON answer broke off in the middle")
        elif not self.ended:
            await self._break_off(self._events)
            self.ended = True
            event = b""
            if request_id is not None:
                event = b"event: message\ndata: " + error_message(request_id, refusal) + b"\n\n"
            await self._out({"type": "http.response.body", "body": event, "more_body": False})

    async def finish(self) -> None:
        """End a stream that has begun and would go on."""
        if self._events is not None and not self.ended:
            await self._break_off(self._events)
            self.ended = True
            await self._out({"type": "http.response.body", "body": b"", "more_body": False})

    async def accept(self) -> None:
        """End with 202: what was sent asks for no answer."""
        if not self.started:
            self.started = self.ended = True
            await self._send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
            await self._send({"type": "http.response.body", "body": b""})
