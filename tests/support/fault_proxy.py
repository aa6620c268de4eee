"""`FaultProxy`: the way to a server of this machine, which breaks or stalls at a byte that the test chooses."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from .patience import PATIENCE
from .serving import serving

Direction = Literal["up", "down"]
"""To the server, or from it."""


class FaultProxy:
    """`async with FaultProxy(port) as proxy`: clients connect to `proxy.port`. Runs on the test's event loop."""

    def __init__(self, to: int) -> None:
        """`to`: a port of 127.0.0.1."""
        self.port = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        """Bytes so far, in each direction."""
        self.connections = 0
        """Taken so far."""
        self._to = to
        self._left: dict[Direction, int | None] = {"up": None, "down": None}
        self._broken = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._serving = serving(self._serve)
        self.port = await self._serving.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._flowing.set()
        await self._serving.__aexit__(kind, error, trace)

    def cut_after(self, count: int, direction: Direction) -> None:
        """Break all connections when `count` more bytes have passed in this direction, and those have arrived. What is
        on its way in the other direction is lost. New connections are taken again at once."""
        self._left[direction] = count
        self._broken.clear()

    async def broken(self) -> None:
        """Return when `cut_after` has struck."""
        async with asyncio.timeout(PATIENCE):
            await self._broken.wait()

    def cut(self, *, reset: bool = False) -> None:
        """Break all connections, and refuse new ones until `restore`. `reset`: without an orderly end."""
        self._refusing = True
        for writer in self._writers if reset else ():
            # Closed without lingering: RST instead of FIN.
            with suppress(OSError):  # it has been closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._break()

    def stall(self) -> None:
        """Pass nothing on, in either direction, until `restore`; connections stay, and new ones are taken."""
        self._flowing.clear()

    def restore(self) -> None:
        """Pass on again, what was held back first; take connections again."""
        self._refusing = False
        self._flowing.set()

    def _break(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._flow(reader, there_writer, "up"))
                tasks.create_task(self._flow(there_reader, writer, "down"))
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _flow(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction) -> None:
        with suppress(OSError):
            while data := await source.read(2**16):
                await self._flowing.wait()
                left = self._left[direction]
                if left is not None and left <= len(data):
                    self._left[direction] = None
                    await self._strike(sink, data[:left])
                    return
                if left is not None:
                    self._left[direction] = left - len(data)
                self.passed[direction] += len(data)
                sink.write(data)
                await sink.drain()
        sink.transport.abort()

    async def _strike(self, sink: asyncio.StreamWriter, last: bytes) -> None:
        if last:
            sink.write(last)
            with suppress(OSError):
                await sink.drain()
            # Aborted at once, the kernel might throw away what the other end has not read yet.
            await asyncio.sleep(0.02)
        self._break()
        self._broken.set()
