"""Plain HTTP over ASGI: reading a bounded body, answering with JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

from .patience import Patience

__all__ = [
    "JSON_TYPE",
    "SSE_HEADERS",
    "BodyReader",
    "BodyTooLarge",
    "BodyTooSlow",
    "ClientGone",
    "EncodedBody",
    "Headers",
    "Receive",
    "Scope",
    "Send",
    "answer",
    "disconnected",
    "fold_headers",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]
"""Request headers by lower-case name; the lines of one that came several times are joined by commas."""

JSON_TYPE: Final = (b"content-type", b"application/json")
SSE_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class BodyTooLarge(Exception):
    """The body is, or says it is, larger than allowed."""


class BodyTooSlow(Exception):
    """The body did not arrive in time."""


class EncodedBody(Exception):
    """The body is compressed. Nothing here decompresses: a small body could become any size."""


class ClientGone(Exception):
    """The client left before its request was complete. There is nobody to answer."""


_ONCE: Final = frozenset(
    (b"authorization", b"content-length", b"content-type", b"host", b"last-event-id", b"mcp-session-id", b"origin")
)


def fold_headers(lines: Sequence[tuple[bytes, bytes]]) -> tuple[Headers, bytes | None]:
    """Headers by name, and the name of one that came twice and must not: whoever reads the first copy and whoever
    reads the last would disagree on it.
    """
    headers = dict(lines)
    repeated: bytes | None = None
    if len(headers) != len(lines):
        headers.clear()
        for name, value in lines:
            if name in headers:
                repeated = name if name in _ONCE else repeated
                value = headers[name] + b", " + value
            headers[name] = value
    return headers, repeated


def declared_size(headers: Headers) -> int:
    """Bytes that a request says its body has; 0 if it says nothing, or nonsense."""
    declared = headers.get(b"content-length", b"0")
    return int(declared) if len(declared) < 18 and declared.isdigit() else 0


class BodyReader:
    """Reads request bodies within a size and a time."""

    def __init__(self, *, limit: int, timeout: float) -> None:
        """`limit` in bytes, `timeout` in seconds."""
        self._limit = limit
        self._late: set[asyncio.Task[Any]] = set()
        self._patience: Patience[asyncio.Task[Any]] = Patience(timeout, self._too_late)

    def _too_late(self, task: asyncio.Task[Any]) -> None:
        self._late.add(task)
        task.cancel()

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole request body.

        Raises:
            BodyTooLarge: More than the limit, declared or sent; nothing more is read.
            BodyTooSlow: Not complete in time.
            EncodedBody: It has a `Content-Encoding`.
            ClientGone: The connection closed first.
        """
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
            raise EncodedBody
        limit = self._limit
        declared = headers.get(b"content-length")
        if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            raise BodyTooLarge
        task = asyncio.current_task()
        assert task is not None
        self._patience.begin(task)
        try:
            parts: list[bytes] = []
            size = 0
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise BodyTooLarge
                if not message.get("more_body", False):
                    return b"".join((*parts, part)) if parts else part
                parts.append(part)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise BodyTooSlow from None
        finally:
            self._patience.end(task)
            self._late.discard(task)


async def disconnected(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(
    send: Send,
    status: int,
    body: bytes = b"",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (JSON_TYPE,),
) -> None:
    """One complete response."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})
