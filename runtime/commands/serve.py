"""`serve`: one node in the foreground, from the target's import to the last saved turn."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from ...stores import EventLogBounds, KeyRing, UnderstudyError
from ..audit.audit import Audit
from ..telemetry.logs import configure_logging
from .child import LISTEN
from .collector import start_is_over
from .config import ServeOptions, format_duration
from .console import shown_url
from .http_servers import BACKLOG, GRACE, HTTP_SERVERS, TLS, HttpServer, Stop, check_installed, load_server
from .key_file import read_keys
from .nats_options import nats_url
from .run_through import run_through
from .serve_tenants import helpers_of, shares_of, tenants_of
from .stop_signals import OVERTIME, StopSignals, inherited_fd, on_loop_error
from .target import Target, default_store_path, load_target

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ..cluster import ClusterOptions
    from ..runtime import Runtime

__all__ = ["BindError", "Node", "StopSignals", "bind", "default_store", "make_runtime", "serve", "serve_until_stopped"]

logger = logging.getLogger("understudy.serve")

END_LISTENING_EVERY = 0.25
"""Seconds between two looks for streams that have been opened although the node stops."""


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

    def end_listening(self) -> None: ...


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
    store = options.store or default_store(target, options)
    runtime = make_runtime(target, store, options, sock.getsockname()[1])
    configure_logging(options.log_format, options.log_level, node=runtime.node_id)
    run_through(_serve(runtime, store, options, sock, spec), loop_factory=_loop_factory())


def make_runtime(target: Target, store: str, options: ServeOptions, port: int) -> Runtime:
    """The `Runtime` that the options describe, not started yet. `port` is the one that is bound."""
    from ..runtime import Runtime

    cluster: dict[str, Any] = {}
    if options.cluster is not None:
        cluster = {"cluster": _cluster_options(options.cluster, options, port), "node_id": options.node}
    encryption: dict[str, Any] = {}
    if options.encryption_keys is not None:
        encryption["encryption"] = KeyRing.from_file(options.encryption_keys)
        encryption["encryption_allows_plain"] = options.encryption_allow_plain
    limits: dict[str, Any] = {}
    if options.limits is not None:
        from ..limits.limits_file import LimitsFile

        limits = {"limits": LimitsFile(options.limits), "when_counters_fail": options.when_counters_fail}
    audit: dict[str, Any] = {}
    if options.audit is not None:
        audit["audit"] = Audit(options.audit, options.audit_when_full)
    return Runtime(
        target.server,
        store=store,
        next_store=options.next_store,
        former_store=options.former_store,
        path=options.path,
        event_log=options.event_log,
        event_bounds=EventLogBounds(max_age=options.event_log_age, max_total_bytes=options.event_log_size),
        session_ttl=options.session_ttl,
        idle_after=options.idle_after,
        max_sessions=options.max_sessions,
        max_body=options.max_body,
        allowed_hosts=options.allowed_hosts or None,
        allowed_origins=options.allowed_origins or None,
        credential_check=options.credential_check,
        tenant_labels=options.tenant_labels,
        **tenants_of(options),
        **helpers_of(options),
        **shares_of(options),
        **encryption,
        **limits,
        **audit,
        **cluster,
    )


def _cluster_options(name: str, options: ServeOptions, port: int) -> ClusterOptions:
    from ..cluster import ClusterOptions
    from ..link.versions import OLDEST

    return ClusterOptions(
        name,
        options.nats_options.settings(),
        url=options.advertise or options.advertised_url(port),
        lease=options.lease,
        link_versions=None if options.link_version is None else (OLDEST, options.link_version),
        unsigned_contexts=options.unsigned_contexts or "refuse",
        request_state_keys=() if options.request_state_keys is None else read_keys(options.request_state_keys),
        key_rotation=options.key_rotation or None,
    )


def default_store(target: Target, options: ServeOptions) -> str:
    """The URL of the store that sessions are kept in if none was named."""
    if options.cluster is None:
        return f"sqlite:///{quote(str(default_store_path(target)))}"
    return nats_url(options.nats_options.settings(), f"understudy-{options.cluster}")


async def _serve(runtime: Runtime, store: str, options: ServeOptions, sock: socket.socket, spec: str) -> None:
    port = sock.getsockname()[1]
    tls = TLS(options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None
    async with AsyncExitStack() as stack:
        longest = max(options.drain_timeout, options.lame_duck_time) + OVERTIME
        signals = stack.enter_context(StopSignals(longest=longest))
        loading = asyncio.get_running_loop().run_in_executor(None, load_server, options.http)
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
            logger.info("sessions are kept in %s for %s after their last use", shown_url(store), ttl)
        if options.next_store is not None:
            logger.info("sessions that other nodes have moved to %s are found there", shown_url(options.next_store))
        if options.former_store is not None:
            logger.info("sessions in %s are brought from there when they are used", shown_url(options.former_store))
        for warning in (options.store_warning(), options.host_warning()):
            if warning:
                logger.warning("%s", warning)
        await loading
        logger.info("serving %s at %s (%s)", spec, options.url(port), options.http)
        start_is_over()
        run = HTTP_SERVERS[options.http]
        await serve_until_stopped(
            runtime,
            run,
            sock,
            tls,
            signals.asked,
            drain_timeout=options.drain_timeout,
            lame_duck=options.lame_duck_time,
            has_successor=lambda: _has_successor(runtime),
        )
    logger.info("stopped: every finished turn is saved")


async def serve_until_stopped(
    node: Node,
    run: HttpServer,
    sock: socket.socket,
    tls: TLS | None,
    asked: asyncio.Event,
    *,
    drain_timeout: float = 30.0,
    lame_duck: float = 0.0,
    has_successor: Callable[[], bool] = lambda: True,
) -> None:
    """Serve the node's app until `asked` is set, then drain the node, then stop the HTTP server.

    The order matters: draining answers what is in flight, so the server must still be there to carry the answers. It
    is there for `lame_duck` seconds at least, while `has_successor` says that there is another node to turn to. What
    runs elsewhere, or in no session, has `drain_timeout` too.

    Raises:
        RuntimeError: The HTTP server ended without having been asked to.
    """
    stop = Stop()
    try:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(run(node.app, sock, tls, stop))
            waiting = tasks.create_task(asked.wait())
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
            if asked.is_set():
                await _drain_and_stop(node, drain_timeout, lame_duck, has_successor, serving, stop)
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


async def _drain_and_stop(
    node: Node,
    drain_timeout: float,
    lame_duck: float,
    has_successor: Callable[[], bool],
    serving: asyncio.Task[None],
    stop: Stop,
) -> None:
    logger.info("stopping: no new sessions, finishing turns (up to %s)", format_duration(drain_timeout))
    began = time.monotonic()
    until = began + lame_duck
    try:
        await node.drain(drain_timeout)
        # The last node need not wait: nobody could turn anywhere else.
        while (left := until - time.monotonic()) > 0 and not serving.done() and has_successor():  # noqa: ASYNC110
            await asyncio.sleep(min(left, 0.1))
    finally:
        stop.grace = max(GRACE, drain_timeout - (time.monotonic() - began))
        stop.set()
        _hush_loop()
        until = time.monotonic() + stop.grace + 2.0
        while not serving.done() and (left := until - time.monotonic()) > 0:
            # They would never end by themselves.
            node.end_listening()
            await asyncio.wait((serving,), timeout=min(left, END_LISTENING_EVERY))
        if not serving.done():
            logger.warning("the HTTP server did not stop in time and was cancelled")
            serving.cancel()


def _has_successor(runtime: Runtime) -> bool:
    """Whether a balancer that turns away from this node has another to turn to, as far as this one knows."""
    if runtime.cluster is None:
        return True
    return any(not peer.news.draining for peer in runtime.cluster.ownership.peers.alive(time.monotonic()))


def bind(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Connections that come before the server runs wait in it.

    `option` is how the port was given, for what is said where it cannot be had.

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
            "address already in use": f"; stop what listens there, or take another {option} (0: any free one)",
            "permission denied": f"; ports below 1024 need privileges, take another {option}",
        }.get(reason, "")
        raise BindError(f"cannot listen on {host} port {port}: {reason}{hint}") from error
    sock.setblocking(False)
    return sock


def _inherited_socket() -> socket.socket | None:
    fd = inherited_fd(LISTEN)
    if fd is None:
        return None
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32" or find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def _hush_loop() -> None:
    """While the HTTP server is torn down, futures it has given up are resolved late (granian): no news to anybody."""

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), asyncio.InvalidStateError | asyncio.CancelledError):
            on_loop_error(loop, context)

    asyncio.get_running_loop().set_exception_handler(handler)
