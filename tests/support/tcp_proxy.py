"""`TcpProxy`: the way to a server, whose requests or answers can be held back, and which can be cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

__all__ = ["TcpProxy"]


class TcpProxy:
    """`async with TcpProxy(port) as proxy`: listens at `proxy.port` of 127.0.0.1, and passes on to another port of it.

    A call is cut off before the server has heard of it by `hold_requests()` and then `cut()`, and after the server has
    done it by `hold_answers()`, a wait for `answers_held`, and `cut()`.
    """

    def __init__(self, to: int) -> None:
        self.port = 0
        self.connections = 0
        """How many were made so far."""
        self.requests = 0
        """Pieces passed on to the server: one for each write of a client that waits for its answer."""
        self.answers_held = asyncio.Event()
        """Set when the server has answered something that is held back."""
        self._to = to
        self._requests_flow = asyncio.Event()
        self._answers_flow = asyncio.Event()
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.restore()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold_requests(self) -> None:
        """Pass on nothing to the server, until `restore`."""
        self._requests_flow.clear()

    def hold_answers(self) -> None:
        """Pass on nothing from the server, until `restore`."""
        self.answers_held.clear()
        self._answers_flow.clear()

    def cut(self) -> None:
        """Break all connections, lose what is held back, and refuse new ones until `restore`."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def restore(self) -> None:
        """Take connections and pass on, what is held back first."""
        self._open = True
        self._requests_flow.set()
        self._answers_flow.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._flow(reader, there_writer, self._requests_flow, None))
                tasks.create_task(self._flow(there_reader, writer, self._answers_flow, self.answers_held))
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _flow(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        flows: asyncio.Event,
        held: asyncio.Event | None,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(256 * 1024):
                if held is None:
                    self.requests += 1
                if not flows.is_set() and held is not None:
                    held.set()
                await flows.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
