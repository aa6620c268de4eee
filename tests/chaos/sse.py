"""`EventStream`: one connection that reads one stream of server-sent events, and may be dropped at any byte."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from chaos.http import LONGEST_HEAD, Broken, NotConnected
from chaos.watch import Watch, Watched

__all__ = ["EventStream", "Refusal", "ServerSentEvent"]

CHUNK = 64 * 1024
HEAD_PATIENCE = 20.0
"""Seconds until the head of an answer must be there."""


class Refusal(Exception):
    """An answer that is no stream of events."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body[:300]!r}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    id: str | None
    kind: str
    data: bytes


class EventStream:
    """Events as a client that heeds the standard has them: one that breaks off has never been."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._events: deque[ServerSentEvent] = deque()
        self._raw = bytearray()
        self._body = bytearray()
        self._chunk: int | None = None
        self._complete = False
        self.over = False
        """For whoever reads several at once to note."""

    @classmethod
    async def open(
        cls, port: int, method: str, headers: str, body: bytes = b"", *, watch: Watch | None = None, mark: str = ""
    ) -> Self:
        """Send a request on a connection of its own and read the head of its answer. `headers`: lines that end in CRLF.
        `watch` looks at every byte that comes, for the owner of `mark`.

        Raises:
            NotConnected: Nothing was sent.
            Broken: It was sent, and no whole head came.
            Refusal: The answer is no stream.
        """
        try:
            if watch is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LONGEST_HEAD)
            else:
                reader, writer = await Watched.connect(watch, port, LONGEST_HEAD)
                reader.asks(mark, f"a stream by {method}")
        except OSError as error:
            raise NotConnected(repr(error)) from error
        try:
            length = f"content-length: {len(body)}\r\n" if method == "POST" else ""
            writer.write(f"{method} /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{length}{headers}\r\n".encode() + body)
            async with asyncio.timeout(HEAD_PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                status = int(head[0].split(" ", 2)[1])
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                if not fields.get("content-type", "").startswith("text/event-stream"):
                    raise Refusal(status, await reader.readexactly(int(fields.get("content-length", 0))))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.transport.abort()
            raise Broken(repr(error)) from error
        except BaseException:
            writer.transport.abort()
            raise
        return cls(reader, writer)

    async def next(self) -> ServerSentEvent | None:
        """The next event; None where the stream has ended in order. Cancellation loses nothing.

        Raises:
            Broken: The connection broke.
        """
        while not self._events:
            if self._complete:
                return None
            try:
                data = await self._reader.read(CHUNK)
            except OSError as error:
                raise Broken(repr(error)) from error
            if not data:
                raise Broken("the connection was closed in the middle of the answer")
            self._raw += data
            self._unchunk()
            self._split()
        return self._events.popleft()

    def abort(self) -> None:
        """Be gone, without a word. Idempotent."""
        with suppress(OSError, RuntimeError):
            self._writer.transport.abort()

    def _unchunk(self) -> None:
        while not self._complete:
            if self._chunk is None:
                line, found, rest = self._raw.partition(b"\r\n")
                if not found:
                    return
                self._chunk, self._raw = int(line.split(b";")[0], 16), rest
                self._complete = self._chunk == 0
            elif len(self._raw) >= self._chunk + 2:
                self._body += self._raw[: self._chunk]
                del self._raw[: self._chunk + 2]
                self._chunk = None
            else:
                return

    def _split(self) -> None:
        *whole, rest = self._body.split(b"\n\n")
        self._body = rest
        self._events.extend(event for block in whole if (event := _event(bytes(block))) is not None)


def _event(block: bytes) -> ServerSentEvent | None:
    fields: dict[bytes, bytes] = {}
    data: list[bytes] = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        else:
            fields[name] = value.removeprefix(b" ")
    if b"id" not in fields and not data:
        return None
    id = fields.get(b"id")
    return ServerSentEvent(
        id.decode() if id is not None else None, fields.get(b"event", b"message").decode(), b"\n".join(data)
    )
