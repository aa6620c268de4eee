"""A small HTTP/1.1 client on asyncio streams: quick enough that the load, not the client, is what is measured."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from chaos.watch import Watch, Watched

__all__ = ["Answer", "Broken", "Connection", "NotConnected", "fetch"]

LONGEST_HEAD = 64 * 1024


class NotConnected(Exception):
    """The node takes no connection: nothing was sent."""


class Broken(Exception):
    """The connection broke after the request was sent, and before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The JSON-RPC message in it: the whole of a JSON body, the last one of a stream.

        Raises:
            Broken: The stream ended before it.
        """
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            events = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ") and len(line) > 7]
            for event in reversed(events):
                message = json.loads(event)
                if "method" not in message:
                    return message
            raise Broken("the stream ended without an answer")
        return json.loads(self.body) if self.body else {}


class Connection:
    """One kept-alive connection; made when first needed, and anew after it broke. One request at a time."""

    def __init__(self, host: str, port: int, watch: Watch | None = None) -> None:
        """`watch`: looks at every byte that comes; see `asks`."""
        self._host = host
        self._port = port
        self._watch = watch
        self._asks = "", ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def asks(self, mark: str, where: str) -> None:
        """The next answers are for the owner of `mark`."""
        self._asks = mark, where

    async def request(self, method: str, path: str, headers: str = "", body: bytes = b"") -> Answer:
        """`headers`: whole lines, each ending in CRLF.

        Raises:
            NotConnected, Broken: No answer. A `Broken` request may have been handled.
        """
        reader, writer = await self._connected()
        if isinstance(reader, Watched):
            reader.asks(*self._asks)
        length = f"content-length: {len(body)}\r\n" if method == "POST" else ""
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{length}{headers}\r\n"
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            return await self._read(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            self.close()
            raise Broken(repr(error)) from error
        except BaseException:
            self.close()
            raise

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if self._streams is None:
            try:
                if self._watch is not None:
                    self._streams = await Watched.connect(self._watch, self._port, LONGEST_HEAD)
                else:
                    self._streams = await asyncio.open_connection(self._host, self._port, limit=LONGEST_HEAD)
            except OSError as error:
                raise NotConnected(repr(error)) from error
        return self._streams

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:]) if name}
        if headers.get("transfer-encoding") == "chunked":
            parts: list[bytes] = []
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                parts.append((await reader.readexactly(size + 2))[:-2])
            await reader.readuntil(b"\r\n")
            body = b"".join(parts)
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        if self._watch is not None:
            # Without the frames of a chunked body, one of which may lie within a mark.
            self._watch.look(body, *self._asks)
        return Answer(status, headers, body)

    async def stream(self, path: str, headers: str) -> int:
        """Send a GET and read no more than the head of its answer; its status. The connection stays open behind it."""
        reader, writer = await self._connected()
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{headers}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            with suppress(OSError, RuntimeError):
                streams[1].transport.abort()


async def fetch(port: int, path: str, *, timeout: float = 2.0) -> Answer | None:
    """One GET on a connection of its own; None where there is no answer in time."""
    connection = Connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(timeout):
            return await connection.request("GET", path, "connection: close\r\n")
    except (NotConnected, Broken, TimeoutError):
        return None
    finally:
        connection.close()
