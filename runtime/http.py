"""Plain HTTP over ASGI: reading a bounded body, answering with JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

__all__ = [
    "JSON_TYPE",
    "SSE_HEADERS",
    "BodyTooLarge",
    "BodyTooSlow",
    "ClientGone",
    "Headers",
    "Receive",
    "Scope",
    "Send",
    "answer",
    "read_body",
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


async def read_body(headers: Headers, receive: Receive, *, limit: int, timeout: float) -> bytes:
    """The whole request body.

    Raises:
        BodyTooLarge: More than `limit` bytes, declared or sent; nothing more is read.
        BodyTooSlow: Not complete within `timeout` seconds.
        ClientGone: The connection closed first.
    """
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise BodyTooLarge
    message = await _first(receive, timeout)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise BodyTooLarge
        return body
    parts = [body]
    size = len(body)
    try:
        async with asyncio.timeout(timeout):
            while True:
                if size > limit:
                    raise BodyTooLarge
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                part: bytes = message.get("body", b"")
                parts.append(part)
                size += len(part)
                if not message.get("more_body", False):
                    if size > limit:
                        raise BodyTooLarge
                    return b"".join(parts)
    except TimeoutError:
        raise BodyTooSlow from None


async def _first(receive: Receive, timeout: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(timeout):
            message = await receive()
    except TimeoutError:
        raise BodyTooSlow from None
    if message["type"] != "http.request":
        raise ClientGone
    return message


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
