"""A client that calls an ASGI app as a function: no sockets, no HTTP parser, the same few microseconds for every side.

What it leaves out (the network, the HTTP server) costs every contender the same, so leaving it out is what lets a
difference between them show.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["ASGIApp", "Caller", "Exchange", "Refused", "reply_of"]

Message = MutableMapping[str, Any]
ASGIApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A side answered something other than what the measurement needs; its figures would mean nothing."""


class Exchange:
    """One request and its response: the `receive` and `send` of a client that stays until the response is over."""

    __slots__ = ("_answered", "_body", "_chunks", "_read", "headers", "status")

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.headers: Headers = []
        self._body = body
        self._read = False
        self._chunks: list[bytes] = []
        self._answered: asyncio.Event | None = None

    async def receive(self) -> Message:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if self._answered is None:
            self._answered = asyncio.Event()
        await self._answered.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message["headers"])
            return
        self._chunks.append(message.get("body", b""))
        if self._answered is not None and not message.get("more_body", False):
            self._answered.set()

    @property
    def body(self) -> bytes:
        return b"".join(self._chunks)

    def header(self, name: bytes) -> str | None:
        """The first header called `name` (lower case), or None."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), None)

    def reply(self) -> dict[str, Any]:
        """The JSON-RPC reply, whether it came as a JSON body or as the last event of an SSE stream.

        Raises:
            Refused: There is none.
        """
        return reply_of(self.status, self.header(b"content-type"), self.body)


def reply_of(status: int, content_type: str | None, body: bytes) -> dict[str, Any]:
    """The JSON-RPC reply in a response, whether it is the body or the last event of a stream.

    Raises:
        Refused: There is none.
    """
    text = body
    if (content_type or "").startswith("text/event-stream"):
        events = [line[5:] for line in body.splitlines() if line.startswith(b"data:") and len(line) > 6]
        text = events[-1] if events else b""
    try:
        return json.loads(text)
    except ValueError:
        raise Refused(f"status {status} without a JSON-RPC reply: {body[:200]!r}") from None


class Caller:
    """Sends requests with one fixed set of headers to one app."""

    __slots__ = ("_app", "_headers", "_scope")

    def __init__(self, app: ASGIApp, headers: dict[str, str], *, path: str = "/mcp", method: str = "POST") -> None:
        self._app = app
        self._headers: Headers = [(b"host", b"localhost:8000")]
        self._headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("ascii"),
            "root_path": "",
            "query_string": b"",
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
        }

    async def send(self, body: bytes = b"") -> Exchange:
        """One request; returns when the app has returned, with all of the response."""
        exchange = Exchange(body)
        scope = self._scope.copy()
        scope["headers"] = [*self._headers, (b"content-length", b"%d" % len(body))]
        await self._app(scope, exchange.receive, exchange.send)
        return exchange
