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
    "Headers",
    "Receive",
    "Scope",
    "Send",
    "answer",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]
"""Request headers by lower-case name; of a header that came twice, the last."""

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


class ClientGone(Exception):
    """The client left before its request was complete. There is nobody to answer."""


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
            ClientGone: The connection closed first.
        """
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
