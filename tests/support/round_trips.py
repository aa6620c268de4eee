"""`RoundTrips`: the way to a server of this machine, which counts how often somebody asks and waits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

KEEP_ALIVES = (b"PING\r\n", b"PONG\r\n")
"""Of NATS, by either side, whenever it likes."""


class RoundTrips:
    """`async with RoundTrips(port) as proxy`: clients connect to `proxy.port`. Runs on the test's event loop.

    What goes up a connection that has been answered, or is new, begins a round trip; more of it before an answer comes
    belongs to the same one.
    """

    def __init__(self, to: int) -> None:
        """`to`: a port of 127.0.0.1."""
        self.port = 0
        self.count = 0
        """Round trips so far, over all connections."""
        self._to = to
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._server.close()
        await self._server.wait_closed()
        while self._writers:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        both = {writer, there_writer}
        self._writers |= both
        waiting = False

        async def flow(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
            nonlocal waiting
            with suppress(OSError):
                while data := await source.read(2**16):
                    if data not in KEEP_ALIVES:
                        self.count += up and not waiting
                        waiting = up
                    sink.write(data)
                    await sink.drain()
            sink.transport.abort()

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(flow(reader, there_writer, up=True))
                tasks.create_task(flow(there_reader, writer, up=False))
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()
