"""One forwarded call at either end: its states, its credit, its one end. Sans-I/O.

Credit is bytes of body that may still be sent; the reader grants more as it consumes, so that a slow reader stops its
own channel and no other.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from .errors import CallFailed, LinkError, NotRun
from .frames import MAX_REASON, Body, Call, Failed, GrantRequest, GrantResponse, NotRunFrame, RequestBody, Start
from .head import CallHead
from .headers import Headers

__all__ = ["CREDIT", "MAX_REQUEST_BODY", "PART", "CallerChannel", "OwnerChannel", "ResponseFrame"]

CREDIT: Final = 256 * 1024
"""Bytes of body that may be under way or unread in one direction of one channel."""
GRANT: Final = CREDIT // 4
"""Bytes consumed before they are granted anew."""
PART: Final = 64 * 1024
"""Bytes of a body in one frame, at most."""
MAX_REQUEST_BODY: Final = 16 * 1024 * 1024

ResponseFrame = Start | Body | NotRunFrame | Failed


class CallerChannel:
    """The end that forwards."""

    __slots__ = (
        "_allowed",
        "_body",
        "_consumed",
        "_credit",
        "_position",
        "begun",
        "ended",
        "error",
        "id",
        "inbox",
        "started",
    )

    def __init__(self, id: int, body: bytes) -> None:
        self.id = id
        self.inbox: deque[Start | Body] = deque()
        """Pieces of the response, in order, that nobody has taken yet. Their bodies are within the credit."""
        self.begun = False
        """Whether the peer may know of this call."""
        self.started = False
        """Whether a piece of the response has come."""
        self.ended = False
        """Nothing more will come. If `error` is None, the response is complete."""
        self.error: LinkError | None = None
        """What to raise once the inbox is empty."""
        self._body = body
        self._position = 0
        self._credit = CREDIT
        self._allowed = CREDIT
        self._consumed = 0

    @property
    def request_sent(self) -> bool:
        """Whether the whole request was handed over: only then can it have run."""
        return self.begun and self._position == len(self._body)

    def next_request(self, head: CallHead, room: int) -> Call | RequestBody | None:
        """The next piece of the request, with at most `room` bytes of body; None while there is no credit for it."""
        start = self._position
        rest = len(self._body) - start
        size = min(rest, room, self._credit)
        if size == 0 and self.begun:
            return None
        part = self._body[start : start + size] if size < len(self._body) else self._body
        self._credit -= size
        self._position = start + size
        if self.begun:
            return RequestBody(self.id, part, size < rest)
        self.begun = True
        return Call(self.id, head, part, size < rest)

    def on_grant(self, size: int) -> None:
        """The owner takes `size` more bytes of the request."""
        self._credit = min(self._credit + size, CREDIT)

    def on_response(self, frame: ResponseFrame, peer: str) -> None:
        """A piece of the response, or its end. What comes after the end is late, and nothing."""
        if self.ended:
            return
        if isinstance(frame, (Start, Body)):
            if isinstance(frame, Start) is self.started:
                self.fail(CallFailed(peer, "its response does not begin once, at the beginning"))
                return
            self._allowed -= len(frame.part)
            if self._allowed < 0:
                self.fail(CallFailed(peer, "it sent more than it was allowed to"))
                return
            self.started = True
            self.inbox.append(frame)
            self.ended = not frame.more
        elif isinstance(frame, NotRunFrame):
            if self.started:
                self.fail(CallFailed(peer, "it refused a call after it had answered"))
            else:
                self.fail(NotRun(peer, frame.reason, frame.data))
        else:
            self.fail(CallFailed(peer, frame.reason))

    def consumed(self, size: int) -> GrantResponse | None:
        """`size` bytes of the response were passed on; what to tell the owner, if anything."""
        self._consumed += size
        if self.ended or self._consumed < GRANT:
            return None
        grant, self._consumed = self._consumed, 0
        self._allowed += grant
        return GrantResponse(self.id, grant)

    def fail(self, error: LinkError) -> None:
        """The call ends with `error`, unless it has ended."""
        if not self.ended:
            self.ended = True
            self.error = error


class OwnerChannel:
    """The end that serves."""

    __slots__ = (
        "_allowed",
        "_consumed",
        "_held",
        "_parts",
        "answered",
        "complete",
        "credit",
        "ended",
        "gone",
        "head",
        "id",
        "size",
    )

    def __init__(self, call: Call) -> None:
        self.id = call.channel
        self.head = call.head
        self.size = len(call.part)
        """Bytes of the request body that have come."""
        self.complete = not call.more
        """Whether the whole request has come."""
        self.answered = False
        """Whether a frame of the response was made."""
        self.ended = False
        """Whether the last frame of the response was made, or nobody waits for it."""
        self.gone = False
        """Whether nobody waits for it."""
        self._parts = [call.part]
        self._allowed = CREDIT - self.size
        self._consumed = self.size
        self.credit = CREDIT
        """Bytes of the response that may be sent."""
        self._held: tuple[int, Headers] | None = None

    def on_body(self, frame: RequestBody) -> GrantRequest | None:
        """More of the request; what to tell the caller, if anything.

        Raises:
            ValueError: More than it was allowed to send, or after the end.
        """
        size = len(frame.part)
        self._allowed -= size
        if self.complete or self._allowed < 0:
            raise ValueError("a request body goes on where it must not")
        self._parts.append(frame.part)
        self.size += size
        self.complete = not frame.more
        self._consumed += size
        if self.complete or self._consumed < GRANT:
            return None
        grant, self._consumed = self._consumed, 0
        self._allowed += grant
        return GrantRequest(self.id, grant)

    def head_after(self, seconds: float) -> CallHead:
        """The head, with what the body took to arrive taken off its budget."""
        budget = self.head.budget
        return self.head if budget is None else self.head._replace(budget=max(budget - seconds, 0.0))

    def take_body(self) -> bytes:
        """The whole request body, once."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def start(self, status: int, headers: Headers) -> None:
        """The response begins. Held until its first piece of body or `flush`, so that a small one is one frame.

        Raises:
            RuntimeError: It has begun before.
            ValueError: `status` is none.
        """
        if not 100 <= status <= 999:
            raise ValueError(f"status {status!r} is no number from 100 to 999")
        if self.answered or self._held is not None:
            raise RuntimeError("the response of this call has begun already")
        self._held = (status, headers)

    @property
    def held(self) -> bool:
        """Whether the response has begun and nobody was told."""
        return self._held is not None

    def flush(self) -> Start | None:
        """The beginning of the response, if it is held still."""
        if self._held is None or self.ended:
            return None
        status, headers = self._held
        self._held = None
        self.answered = True
        return Start(self.id, status, headers, b"", True)

    def next_response(self, part: bytes, size: int, more: bool) -> Start | Body:
        """A frame with `part`, which has `size` bytes and is within `credit`. `more`: others follow.

        Raises:
            RuntimeError: The response has not begun.
        """
        if self._held is not None:
            status, headers = self._held
            self._held = None
            self.answered = True
            frame: Start | Body = Start(self.id, status, headers, part, more)
        elif self.answered:
            frame = Body(self.id, part, more)
        else:
            raise RuntimeError("the response of this call must begin with http.response.start")
        self.credit -= size
        self.ended = not more
        return frame

    def on_grant(self, size: int) -> None:
        """The caller takes `size` more bytes of the response."""
        self.credit = min(self.credit + size, CREDIT)

    def refuse(self, reason: str, data: dict[str, Any]) -> NotRunFrame:
        """What tells the caller that nothing has run; call `finish` once it is on its way.

        Raises:
            RuntimeError: The response has begun, or ended.
        """
        if self.answered or self.ended or self._held is not None:
            raise RuntimeError("a call that was answered cannot be refused any more")
        return NotRunFrame(self.id, reason, data)

    def finish(self) -> None:
        """Nothing more will be sent."""
        self.answered = self.ended = True

    def caller_gone(self) -> None:
        """Nobody waits for the response: what is sent from now on goes nowhere."""
        self.ended = self.gone = True

    def give_up(self, reason: str) -> Failed | None:
        """No (complete) response will come; None if it has come, or nobody waits for it."""
        if self.ended:
            return None
        self.finish()
        return Failed(self.id, reason[:MAX_REASON])
