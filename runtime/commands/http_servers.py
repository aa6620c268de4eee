"""The HTTP servers that can carry the app: hypercorn, uvicorn and granian behind one small function each.

Each serves on a socket that is bound and listening already, until `stop` is set, and then lets the requests in flight
finish for a moment. None of them runs the app's lifespan, takes signals, or logs requests: `serve` does the first two.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from .config import ConfigError
from .hypercorn_server import serve_connections

__all__ = [
    "BACKLOG",
    "HTTP_SERVERS",
    "TLS",
    "HttpServer",
    "Stop",
    "check_installed",
    "load_server",
    "run_granian",
    "run_hypercorn",
    "run_uvicorn",
]

BACKLOG = 1024
"""Connections that the kernel has made and nobody has accepted yet; above it, clients are made to try again."""

GRACE = 3.0
"""Seconds that requests in flight have once `stop` is set, if nothing else is said."""

KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than the pools of usual clients keep theirs, so that the client is the
one to close and never sends a request into a closing connection."""

HYPERCORN_KEEP_ALIVE = 10
"""The same for hypercorn, shorter: it keeps a connection's file descriptor this long after its client has closed it."""

STREAMS_PER_CONNECTION = 1000
"""HTTP/2 streams one connection may have open: a gateway puts the SSE streams of many sessions on one."""


class TLS(NamedTuple):
    """A PEM certificate (chain) and its key."""

    cert: Path
    key: Path


class Stop(asyncio.Event):
    """Set when an HTTP server is to stop; says how many seconds requests in flight have from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.grace = GRACE


HttpServer = Callable[[ASGIApp, socket.socket, "TLS | None", asyncio.Event], Coroutine[Any, Any, None]]
"""Serve the app on a listening socket, which it takes over, until the event is set."""


async def run_hypercorn(app: ASGIApp, sock: socket.socket, tls: TLS | None, stop: asyncio.Event) -> None:
    """HTTP/1.1 and HTTP/2: by ALPN with TLS, by prior knowledge without."""
    # By name, like the others: it is loaded only when chosen, and its ASGI types are not Starlette's.
    config: Any = importlib.import_module("hypercorn.config").Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.loglevel = "WARNING"
    config.backlog = BACKLOG
    config.include_server_header = False
    config.keep_alive_timeout = HYPERCORN_KEEP_ALIVE
    config.keep_alive_max_requests = 2**31
    config.h2_max_concurrent_streams = STREAMS_PER_CONNECTION
    if tls is not None:
        config.certfile, config.keyfile = str(tls.cert), str(tls.key)
    await serve_connections(app, config, _whole(sock), stop, lambda: _grace(stop))


async def run_uvicorn(app: ASGIApp, sock: socket.socket, tls: TLS | None, stop: asyncio.Event) -> None:
    """HTTP/1.1."""
    uvicorn: Any = importlib.import_module("uvicorn")
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        ssl_certfile=str(tls.cert) if tls else None,
        ssl_keyfile=str(tls.key) if tls else None,
    )
    server = uvicorn.Server(config)
    # Its `serve` takes SIGINT and SIGTERM for itself and raises them again at the end; they are ours.
    server.capture_signals = _nothing
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[_whole(sock)]))
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        config.timeout_graceful_shutdown = _grace(stop)
        server.should_exit = True
        stopping.cancel()


async def run_granian(app: ASGIApp, sock: socket.socket, tls: TLS | None, stop: asyncio.Event) -> None:
    """HTTP/1.1 and HTTP/2, with granian's server for an event loop that runs already."""
    embed = importlib.import_module("granian.server.embed")
    constants = importlib.import_module("granian.constants")
    http = importlib.import_module("granian.http")
    holder = importlib.import_module("granian.net").SocketHolder
    log: dict[str, Any] = {"handlers": {}, "loggers": {"_granian": {}}}
    host, port = sock.getsockname()[:2]
    server = embed.Server(
        _with_numbers(app),
        address=host,
        port=port,
        interface=constants.Interfaces.ASGINL,
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKLOG,
        http2_settings=http.HTTP2Settings(max_concurrent_streams=STREAMS_PER_CONNECTION),
        log_dictconfig=log,
        ssl_cert=tls.cert if tls else None,
        ssl_key=tls.key if tls else None,
        ssl_protocol_min=constants.SSLProtocols.tls12,
    )
    # It warns on each start that embedding is experimental, and knows no way to be asked not to.
    logging.getLogger("_granian").setLevel(logging.ERROR)

    def share_socket() -> None:
        # granian can only bind by itself; this is where it would, and a socket that is bound already goes in its stead.
        server._ssp, server._shd = None, holder(sock.detach(), False, BACKLOG)

    server._init_shared_socket = share_socket
    try:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve())
            stopping = tasks.create_task(stop.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            server.workers_kill_timeout = _grace(stop)
            server.stop()
            stopping.cancel()
    except* TimeoutError:
        # What granian says when connections outlast the grace. It has cancelled them.
        pass


HTTP_SERVERS: dict[str, HttpServer] = {"hypercorn": run_hypercorn, "uvicorn": run_uvicorn, "granian": run_granian}
"""By the names that `--http` takes."""

_LOADED_WITH = {"hypercorn": "hypercorn.asyncio.tcp_server", "uvicorn": "uvicorn", "granian": "granian.server.embed"}


def load_server(name: str) -> None:
    """Import what the server that `--http` names is made of. In a thread, while the loop waits for the store."""
    importlib.import_module(_LOADED_WITH[name])


def check_installed(name: str) -> None:
    """Whether the server that `--http` names can be imported.

    Raises:
        ConfigError: It cannot.
    """
    if find_spec(name) is None:
        raise ConfigError(f"--http {name} needs the package {name}: pip install {name}")


def _whole(sock: socket.socket) -> socket.socket:
    """The same, with a protocol that is TCP and not just the default: only of such does asyncio see that small pieces
    are sent at once, and not when the one before is acknowledged.
    """
    return socket.socket(fileno=sock.detach())


def _grace(stop: asyncio.Event) -> float:
    return stop.grace if isinstance(stop, Stop) else GRACE


def _with_numbers(app: ASGIApp) -> ASGIApp:
    """`app`, for a server that gives ports as text where ASGI wants numbers: granian 2.8."""

    async def numbered(scope: Scope, receive: Receive, send: Send) -> None:
        for end in ("client", "server"):
            address = scope.get(end)
            if address is not None:
                host, port = address
                scope[end] = (host, int(port) if isinstance(port, str) and port.isdecimal() else port)
        await app(scope, receive, send)

    return numbered


@contextmanager
def _nothing() -> Generator[None]:
    yield
