"""hypercorn's protocols on connections that are accepted here, so that none is lost when the server stops.

hypercorn's own `serve` does not wait for a connection that it accepts in the moment of its stop: what is asked on it
runs, and is answered by a node that is leaving, or not at all.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from starlette.types import ASGIApp

from ...actors.task_owner import TaskOwner

__all__ = ["serve_connections"]

logger = logging.getLogger("understudy.serve")

LINGER: Final = 0.1
"""Seconds that connections have, once no more are accepted, to say what they were made for. Then idle ones close."""
CUT: Final = 1.0
"""Seconds that requests have to heed their cancellation."""


class _Connections:
    """Those that are open, each with the task that serves it."""

    def __init__(self, serve: Callable[[Any, Any], Coroutine[Any, Any, None]], tasks: TaskOwner) -> None:
        self._serve = serve
        self._tasks = tasks
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter | None] = {}

    def made(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Known from here on: a task that the loop was yet to begin would be missed by whoever waits for all."""
        self._spawn(self._serve_one(reader, writer), writer)

    def adopt(self, sock: socket.socket, tls: Any, handshake: float | None) -> None:
        """Serve what somebody else has accepted."""
        self._spawn(self._connect(sock, tls, handshake), None)

    async def ended(self, timeout: float) -> None:
        """Until none is open, `timeout` seconds at most."""
        if self._open:
            await asyncio.wait(list(self._open), timeout=timeout)

    def cut(self) -> None:
        """End them all, in the middle of whatever they carry."""
        for task, writer in list(self._open.items()):
            task.cancel()
            if writer is not None:
                # A client that takes nothing would keep it open.
                writer.transport.abort()

    def _spawn(self, work: Coroutine[Any, Any, None], writer: asyncio.StreamWriter | None) -> None:
        task = self._tasks.spawn(work)
        self._open[task] = writer
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._open.pop(task, None)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except Exception:
            logger.exception("a connection broke off")
            writer.transport.abort()

    async def _connect(self, sock: socket.socket, tls: Any, handshake: float | None) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), self.made, loop=loop)

        try:
            await loop.connect_accepted_socket(protocol, sock, ssl=tls, ssl_handshake_timeout=handshake)
        except OSError as error:
            logger.debug("a client has left before its connection was served: %r", error)
            sock.close()


async def serve_connections(
    app: ASGIApp, config: Any, sock: socket.socket, stop: asyncio.Event, grace: Callable[[], float]
) -> None:
    """Serve `app` on a listening socket as hypercorn's `config` says, until `stop` is set. What has been asked until
    then has `grace()` seconds to be answered. Whoever has connected is served, the socket's queue included.

    Cancellation closes all connections.
    """
    tcp_server: Any = importlib.import_module("hypercorn.asyncio.tcp_server").TCPServer
    context: Any = importlib.import_module("hypercorn.asyncio.worker_context").WorkerContext(None)
    wrapped: Any = importlib.import_module("hypercorn.app_wrappers").ASGIWrapper(app)
    loop = asyncio.get_running_loop()
    tls = config.create_ssl_context()
    handshake = None if tls is None else config.ssl_handshake_timeout

    async def serve(reader: Any, writer: Any) -> None:
        await tcp_server(wrapped, loop, config, context, {}, reader, writer)

    async with TaskOwner() as tasks:
        connections = _Connections(serve, tasks)
        queue = sock.dup()
        try:
            server = await asyncio.start_server(
                connections.made, sock=sock, backlog=config.backlog, ssl=tls, ssl_handshake_timeout=handshake
            )
            try:
                await stop.wait()
            finally:
                server.close()
            for accepted in _queued(queue):
                connections.adopt(accepted, tls, handshake)
            queue.close()
            # Accepted, but the loop may not have said so yet.
            await asyncio.sleep(0)
            await connections.ended(LINGER)
            await context.terminated.set()
            await connections.ended(grace())
        finally:
            queue.close()
            connections.cut()
            await connections.ended(CUT)


def _queued(listening: socket.socket) -> list[socket.socket]:
    """Connections that the kernel has made and nobody has accepted. As few as there can be are made after the last."""
    listening.setblocking(False)
    accepted: list[socket.socket] = []
    while True:
        try:
            connection, _ = listening.accept()
        except ConnectionAbortedError:
            # A client that has left already.
            continue
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                logger.warning("a connection could not be accepted: %r", error)
            return accepted
        connection.setblocking(False)
        accepted.append(connection)
