"""`serve`: one node in the foreground, from the target's import to the last saved turn."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import quote

from ..stores import UnderstudyError
from .child import LIFELINE, LISTEN
from .config import ServeOptions, format_duration
from .http_servers import GRACE, HTTP_SERVERS, TLS, HttpServer, check_installed
from .logs import configure_logging
from .target import Target, default_store_path, load_target

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from .runtime import Runtime

__all__ = ["BindError", "Node", "bind", "serve", "serve_until_stopped"]

logger = logging.getLogger("understudy.serve")

BACKLOG = 1024

OVERTIME = 15.0
"""Seconds, after the drain's own, that cancelled turns, lifespans and the HTTP server have before the process ends."""


class BindError(UnderstudyError, OSError):
    """The host and port cannot be listened on."""


class StartError(UnderstudyError):
    """The hosted server could not be started: its lifespan failed."""


def _summary(error: Exception) -> str:
    """What went wrong, and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


class Node(Protocol):
    """What `serve_until_stopped` needs of a `Runtime`."""

    @property
    def app(self) -> ASGIApp: ...

    async def drain(self, timeout: float = 30.0) -> None: ...


def serve(spec: str, options: ServeOptions) -> None:
    """Load the target and serve it until SIGTERM or SIGINT. Takes over the process's logging and signals.

    Raises:
        TargetError, ConfigError, BindError, StoreError: It could not start.
    """
    check_installed(options.http)
    # Before the import too: what the target logs while it loads should look like the rest.
    configure_logging(options.log_format, options.log_level)
    target = load_target(spec)
    sock = _inherited_socket() or bind(options.host, options.port)
    store = options.store or f"sqlite:///{quote(str(default_store_path(target)))}"
    runtime = make_runtime(target, store, options)
    configure_logging(options.log_format, options.log_level, node=runtime.node_id)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(runtime, store, options, sock, spec))


def make_runtime(target: Target, store: str, options: ServeOptions) -> Runtime:
    """The `Runtime` that the options describe, not started yet."""
    from .runtime import Runtime

    return Runtime(
        target.server,
        store=store,
        path=options.path,
        session_ttl=options.session_ttl,
        idle_after=options.idle_after,
        max_sessions=options.max_sessions,
        max_body=options.max_body,
        allowed_hosts=options.allowed_hosts or None,
        allowed_origins=options.allowed_origins or None,
    )


async def _serve(runtime: Runtime, store: str, options: ServeOptions, sock: socket.socket, spec: str) -> None:
    port = sock.getsockname()[1]
    tls = TLS(options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(StopSignals(longest=options.drain_timeout + OVERTIME))
        try:
            await stack.enter_async_context(runtime)
        except UnderstudyError:
            raise
        except Exception as error:
            raise StartError(f"{spec} could not start: {_summary(error)}") from error
        if store.startswith("memory:"):
            logger.warning("sessions are kept in memory (%s): they end with this process", store)
        else:
            ttl = format_duration(options.session_ttl)
            logger.info("sessions are kept in %s for %s after their last use", store, ttl)
        if warning := options.host_warning():
            logger.warning("%s", warning)
        logger.info("serving %s at %s (%s)", spec, options.url(port), options.http)
        # What start-up made stays for good: the collector need not walk it again with every full collection.
        gc.collect()
        gc.freeze()
        run = HTTP_SERVERS[options.http]
        await serve_until_stopped(runtime, run, sock, tls, signals.asked, drain_timeout=options.drain_timeout)
    logger.info("stopped: every finished turn is saved")


async def serve_until_stopped(
    node: Node,
    run: HttpServer,
    sock: socket.socket,
    tls: TLS | None,
    asked: asyncio.Event,
    *,
    drain_timeout: float = 30.0,
) -> None:
    """Serve the node's app until `asked` is set, then drain the node, then stop the HTTP server.

    The order matters: draining answers what is in flight, so the server must still be there to carry the answers.

    Raises:
        RuntimeError: The HTTP server ended without having been asked to.
    """
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(run(node.app, sock, tls, stop))
            waiting = tasks.create_task(asked.wait())
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
            if asked.is_set():
                await _drain_and_stop(node, serving, stop, drain_timeout)
            else:
                waiting.cancel()
                # Lets an error of the server itself through as it is.
                await serving
                raise RuntimeError("the HTTP server ended by itself")
    except BaseExceptionGroup as group:
        # One thing went wrong, and whoever reads of it should not have to unwrap it.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


async def _drain_and_stop(node: Node, serving: asyncio.Task[None], stop: asyncio.Event, drain_timeout: float) -> None:
    logger.info("stopping: no new sessions, finishing turns (up to %s)", format_duration(drain_timeout))
    try:
        await node.drain(drain_timeout)
    finally:
        stop.set()
        _hush_loop()
        done, _ = await asyncio.wait((serving,), timeout=GRACE + 2.0)
        if not done:
            logger.warning("the HTTP server did not stop in time and was cancelled")
            serving.cancel()


def _leave_without() -> None:
    logger.error("some turns did not stop within their time and %g s more: leaving without them", OVERTIME)
    logging.shutdown()
    os._exit(1)


class StopSignals:
    """SIGTERM and SIGINT inside a `with`: the first sets `asked`, the second ends the process at once.

    So does the end of the process that started this one, where that one holds a lifeline (see `child`).
    """

    def __init__(self, longest: float | None = None) -> None:
        """`longest`: seconds after the first signal at which the process ends whatever still runs; None: never."""
        self._longest = longest
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lifeline = _inherited_fd(LIFELINE)

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        if self._lifeline is not None:
            self._loop.add_reader(self._lifeline, self._on_lifeline)
        self._loop.set_exception_handler(_on_loop_error)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        self._drop_lifeline()

    def _on_signal(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            logger.warning("second %s: leaving at once", number.name)
            os._exit(128 + number)
        self._ask()

    def _on_lifeline(self) -> None:
        self._drop_lifeline()
        self._ask()

    def _ask(self) -> None:
        self.asked.set()
        if self._longest is not None:
            # A tool that swallows its cancellation, or a thread that works on, must not keep the process for ever. A
            # thread, since the loop may be what is kept busy.
            watchdog = threading.Timer(self._longest, _leave_without)
            watchdog.daemon = True
            watchdog.start()

    def _drop_lifeline(self) -> None:
        if self._lifeline is not None:
            self._loop.remove_reader(self._lifeline)
            os.close(self._lifeline)
            self._lifeline = None


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Connections that come before the server runs wait in it.

    Raises:
        BindError: The address is in use, not this machine's, not permitted, or no address at all.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        dual = host == "::" and socket.has_dualstack_ipv6()
        sock = socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except socket.gaierror as error:
        raise BindError(f"--host {host!r} is no address of this machine: {error.strerror}") from error
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        hint = {
            "address already in use": "; stop what listens there, or take another --port (0: any free one)",
            "permission denied": "; ports below 1024 need privileges, take another --port",
        }.get(reason, "")
        raise BindError(f"cannot listen on {host} port {port}: {reason}{hint}") from error
    sock.setblocking(False)
    return sock


def _inherited_socket() -> socket.socket | None:
    fd = _inherited_fd(LISTEN)
    if fd is None:
        return None
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _inherited_fd(name: str) -> int | None:
    """A descriptor that `child` passed on, taken out of the environment so that it goes no further."""
    text = os.environ.pop(name, "")
    if not text.isdecimal():
        return None
    os.set_inheritable(int(text), False)
    return int(text)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32" or find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # A client that breaks off its TLS handshake is its own business; hypercorn and uvicorn let it reach the loop.
    if isinstance(context.get("exception"), ssl.SSLError):
        logger.debug("TLS handshake failed: %s", context["exception"])
        return
    loop.default_exception_handler(context)


def _hush_loop() -> None:
    """While the HTTP server is torn down, futures it has given up are resolved late (granian): no news to anybody."""

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), asyncio.InvalidStateError | asyncio.CancelledError):
            _on_loop_error(loop, context)

    asyncio.get_running_loop().set_exception_handler(handler)
