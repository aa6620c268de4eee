"""`Runtime`: one node, from the ASGI application down to the store."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

from ..actors import Registry
from ..actors.session import ANONYMOUS, SessionKind
from ..actors.session.handle_calls import HandleCalls
from ..actors.session.handles import check_names
from ..actors.session.relay import Relay
from ..actors.session.servers import Servers
from ..actors.task_owner import TaskOwner
from ..stores import (
    EncryptedStore,
    EventLog,
    EventLogBounds,
    KeyRing,
    SessionStore,
    StoreError,
    event_log_of,
    open_store,
)
from .application import Application
from .audit import Audit, AuditSink, AuditTrail
from .auditing import AuditingObserver
from .edge import Edge
from .errors import ConfigurationError, NotStarted
from .handshake import HandshakeLeg
from .http import BodyReader
from .metrics import Latency, render_metrics
from .modern import ModernLeg
from .notices import Notices
from .posts import Posts
from .pressure import memory_pressure
from .protected_resource import ProtectedResource
from .publishing import publish
from .resumable import ResumableStreams
from .routing import Placement
from .security import HostGuard
from .session_reference import SessionReference
from .streams import StreamTable
from .tenant_label import DEFAULT_LABELS, MOST_LABELS
from .tenant_numbers import TenantNumbers
from .tenant_tally import TenantTally
from .tenants import TenantResolver

if TYPE_CHECKING:
    from mcp.shared.subscriptions import ServerEvent

    from .cluster import ClusterOptions
    from .cluster.cluster import Cluster
    from .cluster.commons import ClusterCommons

__all__ = ["Era", "Runtime"]

logger = logging.getLogger(__name__)

Era = Literal["handshake", "modern"]

MAX_STATELESS_CALLS: Final = 1024
MAX_LISTENING: Final = 10_000


class Runtime:
    """Hosts MCP servers so that every conversation is an actor that survives its process.

    `server` is an `MCPServer`, a low-level `Server` or a FastMCP server, which all sessions share; or a function
    `(tenant) -> server`, sync or async, which makes each session its own.

        runtime = Runtime(server, store="sqlite:///sessions.db")
        app = Starlette(routes=[Mount("/", app=runtime.app)], lifespan=runtime.lifespan)

    It runs inside `async with runtime:`, `lifespan=runtime.lifespan`, or, where `runtime.app` itself is what the HTTP
    server serves, the lifespan that the HTTP server drives. It can be started again after it has stopped, unless it
    was given a store object, which it closes.
    """

    def __init__(
        self,
        server: object,
        *,
        store: SessionStore | str = "memory://",
        path: str = "/mcp",
        eras: Sequence[Era] = ("handshake", "modern"),
        tenants: TenantResolver | None = None,
        session_ttl: float = 86_400.0,
        idle_after: float = 300.0,
        max_sessions: int = 10_000,
        max_memory: int | None = None,
        max_body: int = 4 * 2**20,
        max_state: int = 2**20,
        mailbox_size: int = 1024,
        body_timeout: float = 30.0,
        store_timeout: float = 5.0,
        answer_timeout: float = 600.0,
        allowed_hosts: Sequence[str] | None = None,
        allowed_origins: Sequence[str] | None = None,
        turns: Literal["exclusive", "interleaved"] = "exclusive",
        node_id: str | None = None,
        cluster: ClusterOptions | None = None,
        placement: Placement | None = None,
        event_log: EventLog | Literal["store", "off"] = "store",
        event_bounds: EventLogBounds | None = None,
        encryption: KeyRing | None = None,
        encryption_allows_plain: bool = False,
        audit: Audit | AuditSink | str | Path | None = None,
        tenant_labels: int = DEFAULT_LABELS,
    ) -> None:
        """
        Args:
            server: What to host; see above.
            store: Where sessions are remembered: a store, or the URL of one (`memory://`, `sqlite:///path`).
            path: The path of the MCP endpoint. `/healthz`, `/readyz` and `/metrics` stand beside it.
            eras: Which protocol eras are answered. Without "modern", clients that speak both fall back.
            tenants: Tells from each request's credential who is asking; None: everybody is the anonymous tenant.
            session_ttl: Seconds that a session lives after its last use.
            idle_after: Seconds without use after which a session leaves memory, to come back from the store.
            max_sessions: Sessions in memory at once; above it the least recently used leave, and when all are busy
                new ones get 503.
            max_memory: Bytes that the process may reside in before sessions leave memory, least recently used first;
                None: no such limit.
            max_body: Bytes of a request body.
            max_state: Bytes of one session's packed state.
            mailbox_size: Calls that may wait for one session; above it, 429.
            body_timeout: Seconds for a request body to arrive.
            store_timeout: Seconds for one answer of the store.
            answer_timeout: Seconds that a tool waits for the client's answer to an elicitation or sampling request.
            allowed_hosts: `Host` headers that are answered (`name`, `name:port`, `*`); None: localhost only.
            allowed_origins: `Origin` headers that are answered; None: localhost only.
            turns: "exclusive": one changing call of a session at a time. "interleaved": all of them overlap, as in
                the SDK, and of two that change one key of the state the later to end wins.
            node_id: A name for this node; None: host name and a random part.
            cluster: The cluster that this node is part of; None: it is alone.
            placement: In place of a cluster, its parts; for those who bring their own.
            event_log: Where streams are kept that clients may resume after this node is gone. "store": in what `store`
                brings with it, if it does. "off": nowhere; they are kept in memory alone.
            event_bounds: How much, and for how long, the event log of a store that is given by its URL keeps.
            encryption: The keys that sessions and streams are encrypted with in the store (`EncryptedStore`, which
                has its own event log encrypted too); None: they are kept as they are.
            encryption_allows_plain: Read what was stored before encryption was turned on. Only while that lasts.
            audit: Where the audit trail is written: a file, a function that takes an `AuditEntry`, or an `Audit` that
                says more; None: nowhere.
            tenant_labels: How many tenants have a label of their own in `/metrics`, 1000 at most: the busiest. The rest
                are `other`.

        Raises:
            HostingError: `server` cannot be hosted.
            ConfigurationError: A value is out of range.
            StoreURLError: `store` is a URL that cannot be understood.
        """
        _check_ranges(
            session_ttl=session_ttl,
            idle_after=idle_after,
            max_sessions=max_sessions,
            max_memory=1 if max_memory is None else max_memory,
            max_body=max_body,
            max_state=max_state,
            mailbox_size=mailbox_size,
            body_timeout=body_timeout,
            store_timeout=store_timeout,
            answer_timeout=answer_timeout,
        )
        if not 0 <= tenant_labels <= MOST_LABELS:
            raise ConfigurationError(f"tenant_labels is {tenant_labels!r}; it must be 0 to {MOST_LABELS}")
        unknown = set(eras) - {"handshake", "modern"}
        if unknown or not eras:
            raise ConfigurationError(f'eras is {tuple(eras)!r}; name "handshake", "modern" or both')
        if turns not in ("exclusive", "interleaved"):
            raise ConfigurationError(f'turns is {turns!r}; it must be "exclusive" or "interleaved"')
        if isinstance(event_log, str) and event_log not in ("store", "off"):
            raise ConfigurationError(f'event_log is {event_log!r}; it must be "store", "off" or an EventLog')
        if event_bounds is not None and not isinstance(store, str):
            raise ConfigurationError("event_bounds is for a store that is named by its URL; open yours with its bounds")
        if encryption is not None and not isinstance(event_log, str):
            raise ConfigurationError("encryption is for what the store keeps, and event_log is kept apart from it")
        if encryption_allows_plain and encryption is None:
            raise ConfigurationError("encryption_allows_plain is given without encryption; name the keys")
        self._audit_options = audit if isinstance(audit, Audit) or audit is None else Audit(audit)
        self._audit: AuditTrail | None = None
        self._encryption = encryption
        self._encryption_allows_plain = encryption_allows_plain
        self._event_log = event_log
        self._event_bounds = event_bounds
        self.node_id: str = node_id or f"{socket.gethostname()}-{secrets.token_hex(3)}"
        self._server = server
        self._store_source = store
        self._eras = frozenset(eras)
        self._tenants = tenants
        self._session_ttl = session_ttl
        self._max_body = max_body
        self._body_timeout = body_timeout
        self._session_options: dict[str, Any] = {
            "node_id": self.node_id,
            "ttl": session_ttl,
            "max_state": max_state,
            "answer_timeout": answer_timeout,
            "interleaved": turns == "interleaved",
        }
        self._registry_options: dict[str, Any] = {
            "owner": self.node_id,
            "max_live": max_sessions,
            "idle_after": idle_after,
            "memory_pressure": None if max_memory is None else memory_pressure(max_memory),
            "mailbox_size": mailbox_size,
            "store_timeout": store_timeout,
        }
        self._placement = placement or Placement()
        self._guard = HostGuard(allowed_hosts, allowed_origins)
        self._latency = Latency()
        self._numbers = TenantNumbers(tenant_labels)
        self._cluster_options = cluster
        self._commons: ClusterCommons | None = None
        if cluster is not None:
            if max_body > cluster.max_body:
                raise ConfigurationError(
                    f"max_body is {max_body}, but at most {cluster.max_body} bytes can cross between nodes, any of "
                    "which must be able to take any request"
                )
            self._commons = _cluster_module("commons").ClusterCommons(cluster.request_state_keys)
        self._servers: Servers | None = self._make_servers()
        self._stack: AsyncExitStack | None = None
        self._store: SessionStore | None = None
        self._registry: Registry | None = None
        self._streams: StreamTable | None = None
        self._resumable: ResumableStreams | None = None
        self._modern: ModernLeg | None = None
        self._relay: Relay | None = None
        self._notices: Notices | None = None
        self._running_servers: Servers | None = None
        self._draining = False
        self.cluster: Cluster | None = None
        """This node's part in its cluster while the runtime runs; None where it has none."""
        self.edge: Edge | None = None
        """The HTTP end while the runtime runs; None otherwise."""
        self.app = Application(self, path)
        """The ASGI application: the MCP endpoint at `path`, and `/healthz`, `/readyz`, `/metrics`."""

    def _make_servers(self) -> Servers:
        servers = Servers(self._server, commons=self._commons)
        if servers.one is not None and "modern" in self._eras:
            check_names(servers.one)
        return servers

    # Life

    async def __aenter__(self) -> Self:
        """Open the store, start the server's lifespan and the registry.

        Raises:
            StoreError: The store cannot be opened, or does not answer.
            Whatever the server's lifespan raises.
        """
        if self._stack is not None:
            raise ConfigurationError("the runtime is running already; enter it once")
        async with AsyncExitStack() as stack:
            source = self._store_source
            store = await open_store(source, event_bounds=self._event_bounds) if isinstance(source, str) else source
            stack.push_async_callback(store.aclose)
            if self._encryption is not None:
                store = EncryptedStore(store, self._encryption, allow_plain=self._encryption_allows_plain)
            await store.ping()
            audit = None
            if self._audit_options is not None:
                audit = await stack.enter_async_context(AuditTrail(self._audit_options, node=self.node_id))
            cluster = await self._connect(stack, store)
            # What was entered cannot be entered twice; the next start, after one that failed too, makes it anew.
            servers, self._servers = self._servers or self._make_servers(), None
            await stack.enter_async_context(servers)
            tasks = await stack.enter_async_context(TaskOwner())
            placement = cluster.placement(servers) if cluster is not None else self._placement
            resumable = await stack.enter_async_context(
                ResumableStreams(
                    self._event_log_of(store),
                    timeout=self._registry_options["store_timeout"],
                    writer=placement.writer,
                    writer_alive=placement.writer_alive,
                )
            )
            streams = resumable.table
            kind = SessionKind(servers=servers, streams=resumable.standing, **self._session_options)
            relay = kind.relay = Relay(servers, resumable.standing)
            stack.callback(relay.close)
            registry = Registry(
                store=store,
                kinds=[kind],
                gate=placement.gate,
                observer=placement.observer if audit is None else AuditingObserver(audit, placement.observer),
                **self._registry_options,
            )
            kind.registry = registry
            await stack.enter_async_context(registry)
            bodies = BodyReader(limit=self._max_body, timeout=self._body_timeout)
            posts = Posts(bodies)
            handshake = modern = None
            if "handshake" in self._eras:
                handshake = HandshakeLeg(
                    registry=registry,
                    streams=streams,
                    standing=resumable.standing,
                    resumption=resumable.resumption,
                    posts=posts,
                    session_ttl=self._session_ttl,
                    observe_call=self._observe_call,
                    announce=placement.announce,
                    relay=relay,
                    audit=audit,
                )
            if "modern" in self._eras:
                modern = ModernLeg(
                    registry=registry,
                    servers=servers,
                    tasks=tasks,
                    handles=HandleCalls(
                        registry,
                        ttl=self._session_ttl,
                        ended=partial(streams.end, logged=False),
                        announce=placement.announce,
                    ),
                    posts=posts,
                    max_calls=MAX_STATELESS_CALLS,
                    max_listening=MAX_LISTENING,
                    observe_call=self._observe_call,
                    audit=audit,
                )
                stack.callback(modern.cancel_all)
            notices = Notices(registry, placement.router)
            edge = Edge(
                guard=self._guard,
                tenants=self._tenants,
                posts=posts,
                handshake=handshake,
                modern=modern,
                numbers=self._numbers,
                router=placement.router,
                notices=notices.serve,
                audit=audit,
            )
            if cluster is not None:
                cluster.router.serve_here = edge.serve_inbound
                await cluster.join(registry, streams)
                stack.push_async_callback(cluster.leave)
                self.cluster = cluster
            self._store, self._registry, self._streams, self._modern = store, registry, streams, modern
            self._resumable = resumable
            self._audit = audit
            self._relay = relay
            self.edge = edge
            self._notices = notices
            self._running_servers = servers
            self._draining = False
            self._stack = stack.pop_all()
        return self

    def _event_log_of(self, store: SessionStore) -> EventLog | None:
        if self._event_log == "store":
            return event_log_of(store)
        return None if isinstance(self._event_log, str) else self._event_log

    async def _connect(self, stack: AsyncExitStack, store: SessionStore) -> Cluster | None:
        if self._cluster_options is None or self._commons is None:
            return None
        made: Cluster = _cluster_module("cluster").Cluster(
            self._cluster_options,
            self,
            node_id=self.node_id,
            store=store,
            commons=self._commons,
            session_ttl=self._session_ttl,
            capacity=self._registry_options["max_live"],
        )
        return await stack.enter_async_context(made)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Drain, then let go of everything. Turns still running after the drain's time are cancelled."""
        stack, self._stack = self._stack, None
        assert stack is not None
        try:
            if exc_type is None:
                await self.drain()
        finally:
            self.edge = None
            self.cluster = None
            self._notices = self._running_servers = None
            await stack.__aexit__(exc_type, exc, tb)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """For `Starlette(lifespan=runtime.lifespan)`: the runtime runs while the application does."""
        async with self:
            yield

    async def drain(self, timeout: float = 30.0) -> None:
        """Stop taking sessions, close standing streams, finish the turns that run or wait, and save. Idempotent.

        `/readyz` answers 503 from here on. Turns that take longer than `timeout` seconds are cancelled, which their
        clients are told.
        """
        self._draining = True
        if self._registry is None or self._streams is None:
            return
        if self.cluster is not None:
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.cluster.drain()
            timeout = max(timeout - (time.monotonic() - began), 0.1)
        if self.cluster is not None:
            self.cluster.router.end_listening()
        self._streams.close_standalone()
        if self._modern is not None:
            self._modern.end_listening()
        began = time.monotonic()
        await self._registry.drain(timeout)
        if self._resumable is not None:
            await self._resumable.flush(max(timeout - (time.monotonic() - began), 1.0))

    @property
    def draining(self) -> bool:
        """Whether the node is stopping: `drain` has been called since the start."""
        return self._draining

    @property
    def protected_resource(self) -> ProtectedResource | None:
        """What clients can read of who gives tokens; None where `tenants` is no `ProtectedResource`."""
        return self._tenants if isinstance(self._tenants, ProtectedResource) else None

    # From outside a call

    def session(self, session_id: str, *, tenant: str | None = None) -> SessionReference:
        """A session of this runtime, at whatever node of its cluster, for code that runs in no call of it.

        Nothing is looked up before one of its methods is awaited. `tenant`: whose session it must be; that of any other
        is then as unknown as one that never was. None does not ask: whoever hosts the runtime is trusted.
        """
        return SessionReference(session_id, tenant, self._tell)

    async def _tell(self, id: str, method: str, params: dict[str, Any] | None, tenant: str | None) -> None:
        if self._notices is None:
            raise NotStarted
        await self._notices.tell(id, method, params, tenant)

    async def publish(self, event: ServerEvent, *, tenant: str | None = None) -> None:
        """Tell of a change all who listen for it, at every node: `ResourceUpdated(uri)`, `ToolsListChanged()` and their
        like of `mcp.shared.subscriptions`, as a tool does with `ctx.notify_resource_updated(uri)`.

        `tenant`: whose listeners. Where a factory makes the servers it must be named, unless everybody is anonymous;
        one server that all share is heard by all of them.

        What cannot be sent to other nodes shows there, and those who listen are told to read everything again.
        Servers that were given a bus of their own by their author are not reached through a factory.

        Raises:
            NotificationRefused: No event, or one that is too large; or `tenant` is missing, or means nothing here.
            NotStarted: The runtime is not running.
        """
        if self._running_servers is None:
            raise NotStarted
        if tenant is None and self._tenants is None:
            tenant = ANONYMOUS.tenant if self._running_servers.one is None else None
        await publish(self._running_servers, event, tenant)

    # Looking inside

    @property
    def latency(self) -> Latency:
        """How long calls took that ran here."""
        return self._latency

    async def not_ready(self) -> list[str]:
        """Why this node should get no new work, in words; empty if it should."""
        if self._store is None or self.edge is None:
            return ["not started"]
        reasons = ["draining"] if self._draining else []
        if self.cluster is not None and not reasons:
            reasons += self.cluster.not_ready()
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await self._store.ping()
        except TimeoutError:
            reasons.append(f"the store did not answer within {_READY_TIMEOUT:g} s")
        except StoreError as error:
            reasons.append(f"the store is out of reach: {error}")
        return reasons

    def stats(self) -> dict[str, int | float]:
        """Plain numbers, the ones that `/metrics` shows. Names that end in `_total` only grow."""
        numbers: dict[str, int | float] = {"draining": int(self._draining), **self._numbers.stats()}
        if self._registry is not None:
            numbers |= {f"sessions_{name}": value for name, value in self._registry.stats().items()}
        if self._resumable is not None:
            numbers |= self._resumable.stats()
        if self._relay is not None:
            numbers |= self._relay.stats()
        if self._modern is not None:
            numbers["stateless_calls_running"] = len(self._modern.running)
            numbers["listening_streams"] = len(self._modern.listening)
        if self._audit is not None:
            numbers |= self._audit.stats()
        if self.cluster is not None:
            numbers |= self.cluster.stats()
        tenants_stats = getattr(self._tenants, "stats", None)
        if callable(tenants_stats):
            told = cast("dict[str, int | float]", tenants_stats())
            numbers |= {f"tenants_{name}": value for name, value in told.items()}
        store_stats = getattr(self._store, "stats", None)
        if callable(store_stats):
            own = cast("dict[str, int | float]", store_stats())
            numbers |= {f"store_{name}": value for name, value in own.items()}
        return numbers

    def metrics(self) -> tuple[bytes, str]:
        """A scrape for Prometheus: body and content type."""
        latencies = {"call_seconds": self._latency}
        if self.cluster is not None:
            latencies["failover_seconds"] = self.cluster.failover
        sessions = None if self._registry is None else self._registry.tenants()
        return render_metrics(self.stats(), self.node_id, latencies, self._numbers.collect(sessions or {}))

    def _observe_call(self, seconds: float, tally: TenantTally | None) -> None:
        self._latency.observe(seconds)
        if tally is not None:
            tally.took(seconds)


_READY_TIMEOUT: Final = 2.0


def _cluster_module(name: str) -> Any:
    """A module that needs nats-py, which a node that is alone need not have.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return import_module(f".cluster.{name}", __package__)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("nats"):
            raise
        raise ConfigurationError("a cluster needs nats-py: pip install 'understudy[cluster]'") from error


def _check_ranges(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigurationError(f"{name} is {value!r}; it must be greater than 0")
