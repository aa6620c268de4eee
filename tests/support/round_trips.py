"""`RoundTrips`: the way to a server of this machine, which counts how often somebody asks and waits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from .serving import serving

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

    async def __aenter__(self) -> Self:
        self._serving = serving(self._serve)
        self.port = await self._serving.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._serving.__aexit__(kind, error, trace)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
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
            there_writer.transport.abort()
