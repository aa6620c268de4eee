"""`WatchedStream`: the response of one request, which ends early if the credential does that it was asked for with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, is_version_at_least

from ...actors.session import TenantContext
from ..wire.http import Headers, Scope, Send
from .sse import READER_PATIENCE
from .standing_leg import RESUMABLE_SINCE

__all__ = ["WatchedStream"]

_STREAM: Final = b"text/event-stream"
_LISTEN: Final = b"subscriptions/listen"
_RESUMABLE: Final = frozenset(
    version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS if is_version_at_least(version, RESUMABLE_SINCE)
)


class WatchedStream:
    """One at a time for each task, made and left by the task that serves the request.

    To end it is to cancel that task, which finds it in `ended` and calls `finish`: for all that serves the stream, here
    or at another node, the client has left.
    """

    __slots__ = (
        "_at_boundary",
        "_headers",
        "_on_open",
        "_send",
        "_sending",
        "_task",
        "complete",
        "ended",
        "of",
        "open",
        "scope",
        "tenant",
    )

    def __init__(
        self,
        send: Send,
        scope: Scope,
        headers: Headers,
        tenant: TenantContext,
        on_open: Callable[[WatchedStream], None],
    ) -> None:
        """`on_open` is called once the response turns out to be a stream: most are none."""
        self._send = send
        self.scope = scope
        self._headers = headers
        self.tenant = tenant
        self._on_open = on_open
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._sending = 0
        self._at_boundary = True
        self.of: object = None
        """What whoever watches it knows it by."""
        self.open = False
        """It is a stream that has begun, and its request is being served still."""
        self.ended = False
        self.complete = False

    @property
    def lasts(self) -> bool:
        """Nothing is lost with it: the client may listen again, or come back for the rest. Any other stream is the only
        way to get a call's outcome, and does not outlast the call.
        """
        get = self._headers.get
        return (
            self.scope["method"] == "GET" or get(b"mcp-method") == _LISTEN or get(b"mcp-protocol-version") in _RESUMABLE
        )

    def send(self, message: MutableMapping[str, Any]) -> Awaitable[None]:
        """ASGI's send. What comes after the end is dropped."""
        # No coroutine of its own where there is nothing to watch: most responses are one piece of JSON.
        if not self.open and message["type"] == "http.response.start":
            for name, value in message["headers"]:
                if name == b"content-type":
                    if value == _STREAM:
                        self.open = True
                        self._on_open(self)
                    break
            return self._send(message)
        return self._send_on(message) if self.open or self.ended else self._send(message)

    async def _send_on(self, message: MutableMapping[str, Any]) -> None:
        if self.ended:
            return
        if not message.get("more_body", False):
            self.complete = True
        self._sending += 1
        await self._send(message)
        # Not in a `finally`: of what was interrupted nobody knows how much is out.
        self._sending -= 1
        if body := message.get("body", b""):
            self._at_boundary = body.endswith(b"\n\n")

    def end(self) -> None:
        """Have its task cancelled, unless it has been, or is done."""
        if self._task is not None and self.open and not self.ended:
            self.ended = True
            self._task.cancel()

    def taken_back(self) -> bool:
        """Whether the cancellation that the task has just met was `end`'s alone, and is over with this."""
        return self.ended and self._task is not None and self._task.uncancel() == 0

    async def finish(self) -> None:
        """After `end`: close the response. In the middle of an event it is left open, upon which the server closes the
        connection and the client throws the half of it away.
        """
        if self.complete or self._sending or not self._at_boundary:
            return
        self.complete = True
        try:
            async with asyncio.timeout(READER_PATIENCE):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return

    def leave(self) -> None:
        """Its request has been served; nothing ends it any more."""
        self.open = False
        self._task = None
