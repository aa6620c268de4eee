"""`Runtime`: one node, from the ASGI application down to the store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from ..actors.session import ANONYMOUS
from ..actors.session.handles import check_names
from ..actors.session.servers import Servers
from ..actors.session.surfaces import ToolsFor
from ..actors.session.tenant_changes import TenantChanges
from ..stores import (
    EventLog,
    EventLogBounds,
    KeyRing,
    SessionStore,
)
from .application import Application
from .audit.audit import Audit, AuditSink
from .cluster_module import cluster_module
from .credentials.protected_resource import ProtectedResource
from .credentials.tenants import TenantResolver
from .edge.edge import Edge
from .edge.tenant_news import TenantHook
from .errors import ConfigurationError, NotStarted
from .fairness import Fairness
from .fairness.options import fairness_of
from .limits.counters import Counters
from .limits.guarded_counters import WhenCountersFail
from .limits.limits import Limits, LimitsByPlan, LimitsOf
from .limits.options import LimitOptions
from .node import Node
from .options import Era, RuntimeOptions
from .provider.session_hooks import SessionHooks
from .provider.session_provider import SessionProvider
from .provider.session_reference import SessionReference
from .publishing import publish
from .telemetry.metrics import Latency, render_metrics
from .telemetry.tenant_label import DEFAULT_LABELS
from .telemetry.tenant_numbers import TenantNumbers
from .telemetry.tenant_tally import TenantTally
from .tenant_helpers import HelperOptions
from .wire.routing import Placement
from .wire.security import HostGuard

if TYPE_CHECKING:
    import os

    from mcp.shared.subscriptions import ServerEvent

    from ..actors.session.tenants.cache_bounds import CacheBounds
    from ..actors.session.tenants.database import TenantDatabase
    from ..actors.session.tenants.folders import Files
    from ..actors.session.tenants.secrets import SecretSource
    from ..actors.session.tenants.secrets_file import SecretsFile
    from .cluster import ClusterOptions
    from .cluster.cluster import Cluster
    from .cluster.commons import ClusterCommons

__all__ = ["Era", "Runtime"]

LAST_ANSWERS: Final = 3.0
"""Seconds that what is still being answered has when the runtime is left."""


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
        next_store: SessionStore | str | None = None,
        former_store: SessionStore | str | None = None,
        path: str = "/mcp",
        eras: Sequence[Era] = ("handshake", "modern"),
        tenants: TenantResolver | None = None,
        credential_check: float = 60.0,
        tools_for: ToolsFor | None = None,
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
        fairness: Fairness | Literal["equal", "off"] = "equal",
        cache: CacheBounds | None = None,
        files: Files | str | os.PathLike[str] | None = None,
        secrets: SecretSource | SecretsFile | str | os.PathLike[str] | None = None,
        database: TenantDatabase | None = None,
        limits: Limits | LimitsByPlan | LimitsOf | None = None,
        when_counters_fail: WhenCountersFail = "open",
        limit_counters: Counters | None = None,
        hooks: SessionHooks | None = None,
    ) -> None:
        """
        Args:
            server: What to host; see above.
            store: Where sessions are remembered: a store, or the URL of one (`memory://`, `sqlite:///path`), or `auto`
                for the one that the environment names (`REDIS_URL`, `DATABASE_URL`, ...).
            next_store: The store that the cluster is about to move to, so that sessions are found that other nodes have
                moved there already; `stores/README.md` tells how to move. None: it stays.
            former_store: The store that the cluster moves from: a session that is still there is brought to `store`
                when it is used. None: there is none.
            path: The path of the MCP endpoint. `/healthz`, `/readyz` and `/metrics` stand beside it.
            eras: Which protocol eras are answered. Without "modern", clients that speak both fall back.
            tenants: Tells from each request's credential who is asking; None: everybody is the anonymous tenant.
            credential_check: Seconds after which `tenants` is asked again about a credential that streams are open
                with. They end when it is worth nothing any more, and when it expires.
            tools_for: A function of a `TenantContext`, sync or async, that names the tools which a credential of it may
                see (`*` in a name stands for anything); to it all others are unknown. None: all, but for those that
                `requires` more. Asked once for equal tenant, principal, plan and scopes, until `tenant_changed`.
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
            fairness: How the tenants of a node share it. "equal": as `Fairness()` says. "off": first come, first
                served, as it is without `tenants`.
            cache: How much `tenant.cache` keeps; None: what `CacheBounds` says.
            files: The folder of the tenants' files, `tenant.files`, or `Files` that says more; None: they have none.
            secrets: Where `tenant.secrets` come from: a function of the tenant, plain or async, or a file that only
                this process can read (TOML, JSON, .env); None: the method `secrets` of `tenants`, if it has one.
            database: What `tenant.connection()` connects to: `RowLevelSecurity(url)` or its like; None: nothing.
            limits: How much a tenant may use, and each of its sessions: `Limits`, a mapping of plans to `Limits`, or a
                function of the `TenantContext`; None: everything.
            when_counters_fail: What to do while what all nodes count together is out of reach. "open": each node
                applies the limits by itself, alone. "closed": what has a limit is refused.
            limit_counters: Where nodes count together, in place of the cluster's NATS.
            hooks: Functions that are told when a session is opened, comes into memory, leaves it, or ends; None: none.

        Raises:
            HostingError: `server` cannot be hosted.
            ConfigurationError: A value is out of range.
            StoreURLError: `store`, or one of the other two, is a URL that cannot be understood, or both are one store.
        """
        self._options = RuntimeOptions(
            store=store,
            next_store=next_store,
            former_store=former_store,
            path=path,
            eras=eras,
            tenants=tenants,
            credential_check=credential_check,
            tools_for=tools_for,
            session_ttl=session_ttl,
            idle_after=idle_after,
            max_sessions=max_sessions,
            max_memory=max_memory,
            max_body=max_body,
            max_state=max_state,
            mailbox_size=mailbox_size,
            body_timeout=body_timeout,
            store_timeout=store_timeout,
            answer_timeout=answer_timeout,
            allowed_hosts=allowed_hosts,
            allowed_origins=allowed_origins,
            turns=turns,
            cluster=cluster,
            placement=placement,
            event_log=event_log,
            event_bounds=event_bounds,
            encryption=encryption,
            encryption_allows_plain=encryption_allows_plain,
            audit=audit if isinstance(audit, Audit) or audit is None else Audit(audit),
            tenant_labels=tenant_labels,
            fairness=fairness_of(fairness) if tenants is not None else None,
            helpers=HelperOptions(cache, files, secrets, database),
            limits=LimitOptions.of(limits, when_counters_fail, limit_counters),
            hooks=hooks,
        )
        self.node_id: str = node_id or f"{socket.gethostname()}-{token_hex(3)}"
        self._server = server
        self._tenant_changes = TenantChanges()
        self._tenant_hooks: list[TenantHook] = []
        self._guard = HostGuard(allowed_hosts, allowed_origins)
        self._latency = Latency()
        self._numbers = TenantNumbers(tenant_labels)
        self._commons: ClusterCommons | None = None
        if cluster is not None:
            self._commons = cluster_module("commons").ClusterCommons(cluster.request_state_keys)
        self._servers: Servers | None = self._make_servers()
        self._node: Node | None = None
        self._draining = False
        self.sessions = SessionProvider(lambda: self._node, self._options, self._refer)
        """Its sessions, at all nodes of its cluster, for code that runs in no call of theirs."""
        self.app = Application(self, path)
        """The ASGI application: the MCP endpoint at `path`, and `/healthz`, `/readyz`, `/metrics`."""

    def _make_servers(self) -> Servers:
        servers = Servers(
            self._server, commons=self._commons, tools_for=self._options.tools_for, changes=self._tenant_changes
        )
        if servers.one is not None and "modern" in self._options.eras:
            check_names(servers.one)
        return servers

    # Life

    async def __aenter__(self) -> Self:
        """Open the store, start the server's lifespan and the registry.

        Raises:
            StoreError: The store cannot be opened, or does not answer.
            Whatever the server's lifespan raises.
        """
        if self._node is not None:
            raise ConfigurationError("the runtime is running already; enter it once")
        # What was entered cannot be entered twice; the next start, after one that failed too, makes it anew.
        servers, self._servers = self._servers or self._make_servers(), None
        node = Node(
            self,
            self._options,
            servers=servers,
            commons=self._commons,
            guard=self._guard,
            observe_call=self._observe_call,
            numbers=self._numbers,
            changes=self._tenant_changes,
            hooks=self._tenant_hooks,
        )
        self._node = await node.__aenter__()
        self._draining = False
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Drain, answer what has been asked, then let go of everything. Turns still running after the drain's time are
        cancelled."""
        node = self._node
        assert node is not None
        try:
            if exc_type is None:
                # What was to be drained before has had its time.
                await self.drain(*((LAST_ANSWERS,) if self._draining else ()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_ANSWERS):
                        # An HTTP server that has stopped may not know of a request that it took in that very moment.
                        await self.app.finish()
        finally:
            self._node = None
            await node.__aexit__(exc_type, exc, tb)

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
        if self._node is not None:
            await self._node.drain(timeout)

    def end_listening(self) -> None:
        """End the streams of clients that only listen, as `drain` does: they come back, here or at another node."""
        if self._node is not None:
            self._node.end_listening()

    @property
    def draining(self) -> bool:
        """Whether the node is stopping: `drain` has been called since the start."""
        return self._draining

    @property
    def protected_resource(self) -> ProtectedResource | None:
        """What clients can read of who gives tokens; None where `tenants` is no `ProtectedResource`."""
        tenants = self._options.tenants
        return tenants if isinstance(tenants, ProtectedResource) else None

    @property
    def edge(self) -> Edge | None:
        """The HTTP end while the runtime runs; None otherwise."""
        return None if self._node is None else self._node.edge

    @property
    def cluster(self) -> Cluster | None:
        """This node's part in its cluster while the runtime runs; None where it has none."""
        return None if self._node is None else self._node.cluster

    # From outside a call

    def session(self, session_id: str, *, tenant: str | None = None) -> SessionReference:
        """A session of this runtime, at whatever node of its cluster, for code that runs in no call of it.

        Nothing is looked up before one of its methods is awaited. `tenant`: whose session it must be; that of any other
        is then as unknown as one that never was. None does not ask: whoever hosts the runtime is trusted.
        """
        return self._refer(session_id, tenant)

    def _refer(self, id: str, tenant: str | None) -> SessionReference:
        return SessionReference(id, tenant, self._tell)

    async def _tell(self, id: str, method: str, params: dict[str, Any] | None, tenant: str | None) -> None:
        if self._node is None:
            raise NotStarted
        await self._node.notices.tell(id, method, params, tenant)

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
        if self._node is None:
            raise NotStarted
        servers = self._node.servers
        if tenant is None and self._options.tenants is None:
            tenant = ANONYMOUS.tenant if servers.one is None else None
        await publish(servers, event, tenant)

    async def tenant_changed(self, tenant: str) -> None:
        """Tell all nodes that what a tenant is allowed, or is served, may be another from now on.

        Every node forgets what it remembers of the tenant (verdicts of resolvers, `tools_for`, whatever was added with
        `on_tenant_changed`), makes the servers of its sessions anew when they are next called, asks again about the
        credentials of its open streams, and tells its clients that all lists have changed. Here that is so when this
        returns; at other nodes a moment later, and at one that is cut off as soon as it is back.

        Raises:
            ConfigurationError: `tenant` is empty, or no text.
            ClusterError: It is so at this node, but the others may not hear of it.
            NotStarted: The runtime is not running.
        """
        if self._node is None:
            raise NotStarted
        if not isinstance(tenant, str) or not tenant:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"tenant is {tenant!r}; name the tenant that has changed")
        await self._node.tenant_changed(tenant)

    def on_tenant_changed(self, hook: TenantHook) -> Callable[[], None]:
        """Have `hook`, sync or async, called at this node with each tenant that changes; None: any may have changed.

        For caches of your own. It may take 5 s; what it raises is logged. Returns what takes it out again.
        """
        self._tenant_hooks.append(hook)

        def remove() -> None:
            if hook in self._tenant_hooks:
                self._tenant_hooks.remove(hook)

        return remove

    # Looking inside

    @property
    def latency(self) -> Latency:
        """How long calls took that ran here."""
        return self._latency

    async def not_ready(self) -> list[str]:
        """Why this node should get no new work, in words; empty if it should."""
        if self._node is None:
            return ["not started"]
        return await self._node.not_ready(draining=self._draining)

    def stats(self) -> dict[str, int | float]:
        """Plain numbers, the ones that `/metrics` shows. Names that end in `_total` only grow."""
        numbers: dict[str, int | float] = {"draining": int(self._draining), **self._numbers.stats()}
        return numbers if self._node is None else numbers | self._node.stats()

    def metrics(self) -> tuple[bytes, str]:
        """A scrape for Prometheus: body and content type."""
        latencies = {"call_seconds": self._latency}
        if self.cluster is not None:
            latencies["failover_seconds"] = self.cluster.failover
        sessions: dict[str, int] = {} if self._node is None else self._node.registry.tenants()
        return render_metrics(self.stats(), self.node_id, latencies, self._numbers.collect(sessions))

    def _observe_call(self, seconds: float, tally: TenantTally | None) -> None:
        self._latency.observe(seconds)
        if tally is not None:
            tally.took(seconds)
