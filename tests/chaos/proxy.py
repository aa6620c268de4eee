"""`Proxy`: one node's way to a server, which can be cut, stalled and restored while others go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

__all__ = ["Proxy"]

CHUNK = 256 * 1024


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes on to another. In a thread of its own, so that the load beside it
    does not slow it down by more than the interpreter must; not bound to an event loop."""

    def __init__(self, to: int) -> None:
        """`to`: a port of 127.0.0.1."""
        self.port = 0
        self._to = to
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {to}", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows: set[asyncio.Task[None]] = set()
        self._open = True
        self._flowing: asyncio.Event
        self._server: asyncio.Server

    def start(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def stop(self) -> None:
        """Close everything. Idempotent."""
        if self._loop.is_closed():
            return
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def cut(self) -> None:
        """Break all connections, and refuse new ones until `restore`."""
        self._do(self._cut())

    def stall(self) -> None:
        """Pass nothing on, in either direction, until `restore`; connections stay as they are."""
        self._do(self._set(False))

    def restore(self) -> None:
        """Pass on again, what was held back first; take connections again."""
        self._open = True
        self._do(self._set(True))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, flowing: bool) -> None:
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _cut(self) -> None:
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    async def _close(self) -> None:
        await self._cut()
        self._server.close()
        for flow in self._flows:
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as tasks:
                for source, sink in ((reader, there_writer), (there_reader, writer)):
                    flow = tasks.create_task(self._flow(source, sink))
                    self._flows.add(flow)
                    flow.add_done_callback(self._flows.discard)
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _flow(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
