"""hypercorn's protocols on connections that are accepted here, so that none is lost when the server stops.

hypercorn's own `serve` does not wait for a connection that it accepts in the moment of its stop: what is asked on it
runs, and is answered by a node that is leaving, or not at all.
"""

from __future__ import annotations

import asyncio
import errno
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
RETRY: Final = 1.0
"""Seconds without a connection more, when this process may have no more descriptors."""
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _Connections:
    """Those that are open, each with the task that serves it: from the call on that accepts it, so that none is missed
    by whoever waits for all. `asyncio.Server` has them in its hands for some turns of the loop before it tells.
    """

    def __init__(
        self,
        serve: Callable[[Any, Any], Coroutine[Any, Any, None]],
        tasks: TaskOwner,
        tls: Any,
        handshake: float | None,
    ) -> None:
        self._serve = serve
        self._tasks = tasks
        self._tls = tls
        self._handshake = handshake
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter | socket.socket] = {}

    def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that has just been accepted."""
        self._spawn(self._connect(sock), sock)

    async def ended(self, timeout: float) -> None:
        """Until none is open, `timeout` seconds at most."""
        ends = asyncio.get_running_loop().time() + timeout
        while self._open and (left := ends - asyncio.get_running_loop().time()) > 0:
            # One that is connected goes on in a task of its own.
            await asyncio.wait(list(self._open), timeout=left)

    def cut(self) -> None:
        """End them all, in the middle of whatever they carry."""
        for task, end in list(self._open.items()):
            task.cancel()
            if isinstance(end, asyncio.StreamWriter):
                # A client that takes nothing would keep it open.
                end.transport.abort()

    def _spawn(self, work: Coroutine[Any, Any, None], end: asyncio.StreamWriter | socket.socket) -> None:
        task = self._tasks.spawn(work)
        self._open[task] = end
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Any]) -> None:
        end = self._open.pop(task)
        if isinstance(end, socket.socket) and task.cancelled():
            # Perhaps before it began.
            end.close()

    async def _connect(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), self._made, loop=loop)

        try:
            await loop.connect_accepted_socket(protocol, sock, ssl=self._tls, ssl_handshake_timeout=self._handshake)
        except OSError as error:
            logger.debug("a client has left before its connection was served: %r", error)
            sock.close()
        except Exception:
            logger.exception("a connection could not be served")
            sock.close()

    def _made(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._serve_one(reader, writer), writer)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except Exception:
            logger.exception("a connection broke off")
            writer.transport.abort()


class _Door:
    """Accepts connections at a listening socket. Made on the event loop; open until `close`."""

    def __init__(self, listening: socket.socket, backlog: int, accepted: Callable[[socket.socket], None]) -> None:
        self._listening = listening
        self._backlog = backlog
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        listening.listen(backlog)
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept what the kernel has connected already, and refuse all others."""
        self._loop.remove_reader(self._listening)
        self._accept()
        if self._retry is not None:
            self._retry.cancel()
        self._listening.close()

    def _accept(self) -> None:
        for _ in range(self._backlog):
            try:
                connection, _ = self._listening.accept()
            except ConnectionAbortedError:
                # A client that has left already.
                continue
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                logger.warning("connections cannot be accepted: %r; raise the limit of open files (ulimit -n)", error)
                self._loop.remove_reader(self._listening)
                self._retry = self._loop.call_later(RETRY, self._loop.add_reader, self._listening, self._accept)
                return
            connection.setblocking(False)
            self._accepted(connection)


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
        connections = _Connections(serve, tasks, tls, handshake)
        try:
            door = _Door(sock, config.backlog, connections.adopt)
            try:
                await stop.wait()
            finally:
                door.close()
            await connections.ended(LINGER)
            await context.terminated.set()
            await connections.ended(grace())
        finally:
            connections.cut()
            await connections.ended(CUT)
