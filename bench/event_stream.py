"""`EventStream`: a client's end of one stream of server-sent events, on a connection of its own."""

from __future__ import annotations

import asyncio
import re
from typing import Self

from .asgi import Refused
from .clients import HANDSHAKE_VERSION

__all__ = ["EventStream", "get_request"]

DEADLINE = 120.0
"""Seconds after which what is waited for is given up."""


def get_request(session_id: str, *, last_event_id: str | None = None) -> bytes:
    """A GET of the standalone stream, or of the stream that `last_event_id` belongs to, as it goes over the wire."""
    resumed = f"last-event-id: {last_event_id}\r\n" if last_event_id is not None else ""
    return (
        "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n"
        f"mcp-session-id: {session_id}\r\nmcp-protocol-version: {HANDSHAKE_VERSION}\r\n{resumed}\r\n"
    ).encode()


class EventStream(asyncio.Protocol):
    """Reads whatever comes, and says when something in particular has come.

    Chunks are not taken apart: no server here cuts an event in two.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._awaited = b""
        self._arrived: asyncio.Future[None] | None = None
        self._looked = 0
        self._lost = False
        self._listening = False
        self.comments = 0
        """Keep-alives that have come."""

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect. Raises `OSError` where nobody listens."""
        stream = cls()
        await asyncio.get_running_loop().create_connection(lambda: stream, host, port)
        return stream

    def send(self, request: bytes) -> None:
        """Ask for the stream: a whole request, as it goes over the wire."""
        assert self._transport is not None
        self._transport.write(request)

    async def until(self, text: bytes) -> None:
        """Return when `text` has come.

        Raises:
            Refused: The status is not 200, the connection has ended, or it has not come in time.
        """
        self._awaited, self._looked = text, 0
        self._arrived = asyncio.get_running_loop().create_future()
        self._look()
        try:
            async with asyncio.timeout(DEADLINE):
                await self._arrived
        except TimeoutError:
            raise Refused(f"{text!r} has not come within {DEADLINE:.0f} s, but {self._last_words()}") from None
        finally:
            self._arrived = None

    def id_of(self, text: bytes) -> str:
        """The id of the event that holds `text`, which has come.

        Raises:
            Refused: It has none.
        """
        at = self._came.index(text)
        ids = _ID.findall(self._came, 0, at)
        if not ids:
            raise Refused(f"the event with {text!r} has no id")
        return ids[-1].decode("ascii")

    def count(self, text: bytes) -> int:
        """How often `text` has come."""
        return self._came.count(text)

    def only_listen(self) -> None:
        """Forget what has come, and from now on count keep-alives and keep nothing."""
        self._came.clear()
        self._listening = True

    @property
    def lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost

    def close(self) -> None:
        """Drop the connection. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    # `asyncio.Protocol`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._listening:
            self.comments += data.count(b"\n: ")
            return
        self._came += data
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._look()

    def _look(self) -> None:
        waiting, text = self._arrived, self._awaited
        if waiting is None or waiting.done():
            return
        if len(self._came) >= len(_OK) and not self._came.startswith(_OK):
            waiting.set_exception(Refused(f"a stream was refused: {self._last_words()}"))
        elif self._came.find(text, self._looked) >= 0:
            waiting.set_result(None)
        elif self._lost:
            waiting.set_exception(Refused(f"the connection ended before {text!r} came: {self._last_words()}"))
        # Its beginning may be the end of what is there.
        self._looked = max(len(self._came) - len(text), 0)

    def _last_words(self) -> str:
        return repr(bytes(self._came[:200])) + " .. " + repr(bytes(self._came[-200:]))


_OK = b"HTTP/1.1 200"
_ID = re.compile(rb"(?:^|\n)id: ?([!-~]+)\r?\n")
