"""A node behind a real HTTP server and a raw connection to it, for what only bytes can show."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from edge.client import ACCEPT, Client
from support.patience import PATIENCE
from understudy.runtime.commands.http_servers import HTTP_SERVERS


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next response, with a body of known length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = b""
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readline()
                await self.reader.readline()
            return Answer(int(first.split()[1]), headers, body)

    async def ended(self) -> bytes:
        """What still comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def hang_up(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def carried(client: Client, server: str) -> AsyncGenerator[int]:
    """The port at which `server` carries the client's node."""
    sock, stop = socket.create_server(("127.0.0.1", 0)), asyncio.Event()
    port = sock.getsockname()[1]
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(HTTP_SERVERS[server](client.runtime.app, sock, None, stop))
        try:
            yield port
        finally:
            stop.set()


@asynccontextmanager
async def dialled(port: int) -> AsyncGenerator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


def head(client: Client, *lines: str, method: str = "POST") -> bytes:
    """The head of a request in the client's session."""
    return "\r\n".join(
        [
            f"{method} /mcp HTTP/1.1",
            "Host: localhost",
            f"Accept: {ACCEPT}",
            "Content-Type: application/json",
            *([f"Mcp-Session-Id: {client.session}"] if client.session else []),
            *([f"MCP-Protocol-Version: {client.revision}"] if client.revision else []),
            *lines,
            "\r\n",
        ]
    ).encode("latin-1")
