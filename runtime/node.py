"""`Node`: the running parts of a runtime, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

from ..actors import Registry
from ..actors.session import SessionKind
from ..actors.session.handle_calls import HandleCalls
from ..actors.session.relay import Relay
from ..actors.session.servers import Servers
from ..actors.session.tenant_changes import TenantChanges
from ..actors.session.tenants.helpers import TenantHelpers
from ..actors.task_owner import TaskOwner
from ..stores import Record, SessionStore, StoreError
from .audit.audit import AuditTrail
from .audit.auditing import audit_end, audit_opening, audit_update
from .cluster_module import cluster_module
from .edge.edge import Edge
from .edge.handshake import HandshakeLeg
from .edge.modern import ModernLeg
from .edge.notices import NOTICE, Notices
from .edge.open_streams import OpenStreams
from .edge.posts import Posts
from .edge.tenant_news import TenantHook, TenantNews
from .fairness.admission import Admission
from .fairness.blocking_threads import BlockingThreads
from .fairness.thread_limiter import thread_limiter
from .limits.limiter import Limiter
from .node_store import choose_event_log, open_node_store
from .options import RuntimeOptions
from .pressure import memory_pressure
from .provider.host_calls import HostCalls
from .provider.session_ends import SessionEnded, SessionEnds
from .provider.session_errands import ERRAND, SessionErrands
from .provider.session_life import SessionLife
from .streams.resumable import ResumableStreams
from .telemetry.tenant_numbers import TenantNumbers
from .telemetry.tenant_tally import ObserveCall
from .wire.http import BodyReader
from .wire.routing import Placement
from .wire.security import HostGuard

if TYPE_CHECKING:
    from .cluster.cluster import Cluster
    from .cluster.commons import ClusterCommons
    from .runtime import Runtime

__all__ = ["Node"]

MAX_STATELESS_CALLS: Final = 1024
MAX_LISTENING: Final = 10_000
_READY_TIMEOUT: Final = 2.0


class Node:
    """Made and entered by `Runtime` at each start. Entering opens the store, starts the server's lifespan and the
    registry, and joins the cluster; leaving lets go of everything in the reverse order, without draining.
    """

    store: SessionStore
    helpers: TenantHelpers
    registry: Registry
    resumable: ResumableStreams
    relay: Relay
    notices: Notices
    session_calls: HostCalls
    """The host program's way to `SessionErrands`, here and at other nodes."""
    edge: Edge
    news: TenantNews
    audit: AuditTrail | None = None
    ends: SessionEnds | None = None
    life: SessionLife | None = None
    open_streams: OpenStreams | None = None
    admission: Admission | None = None
    threads: BlockingThreads | None = None
    limiter: Limiter | None = None
    handshake: HandshakeLeg | None = None
    modern: ModernLeg | None = None
    cluster: Cluster | None = None

    def __init__(
        self,
        runtime: Runtime,
        options: RuntimeOptions,
        *,
        servers: Servers,
        commons: ClusterCommons | None,
        guard: HostGuard,
        observe_call: ObserveCall,
        numbers: TenantNumbers,
        changes: TenantChanges,
        hooks: list[TenantHook],
    ) -> None:
        """`servers`: not entered yet. `commons`: what a cluster's nodes share; None without a cluster.
        `observe_call`: told of the seconds that each call took.
        """
        self.runtime = runtime
        self.options = options
        self.servers = servers
        self._commons = commons
        self._guard = guard
        self._observe_call = observe_call
        self._numbers = numbers
        self._changes = changes
        self._hooks = hooks
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """
        Raises:
            StoreError: The store cannot be opened, or does not answer.
            Whatever the server's lifespan raises.
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(exc_type, exc, tb)

    async def _start(self, stack: AsyncExitStack) -> None:
        options = self.options
        cluster = self._cluster()
        if cluster is None:
            self.store = await open_node_store(options, stack)
        else:
            self.store = await self._open_store_and_connect(stack, cluster)
        if options.audit is not None:
            self.audit = await stack.enter_async_context(AuditTrail(options.audit, node=self.runtime.node_id))
        self.helpers = self.servers.helpers = await stack.enter_async_context(options.helpers.make(options.tenants))
        if cluster is not None:
            await stack.enter_async_context(cluster)
        await stack.enter_async_context(self.servers)
        tasks = await stack.enter_async_context(TaskOwner())
        if options.limits is not None:
            self.limiter = await stack.enter_async_context(
                options.limits.running(
                    node=self.runtime.node_id,
                    store=self.store,
                    cluster=cluster,
                    tasks=tasks,
                    store_timeout=options.store_timeout,
                )
            )
        placement = (
            cluster.placement(self.servers, self.store) if cluster is not None else options.placement or Placement()
        )
        self.resumable = await stack.enter_async_context(
            ResumableStreams(
                choose_event_log(options, self.store),
                timeout=options.store_timeout,
                writer=placement.writer,
                writer_alive=placement.writer_alive,
            )
        )
        await self._start_sessions(stack, placement)
        self._open_edge(stack, placement, tasks)
        if cluster is not None:
            cluster.router.serve_here = self.edge.serve_inbound
            cluster.journal.changed = self.news.heard
            cluster.ended_asleep = self._ended_asleep
            await cluster.join(self.registry, self.resumable.table)
            stack.push_async_callback(cluster.leave)
            self.cluster = cluster

    async def _open_store_and_connect(self, stack: AsyncExitStack, cluster: Cluster) -> SessionStore:
        """Both at once: a cold start waits for the slower of them, not for one after the other."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(cluster.connect())
                # In this task, which outlives the opening: a store may have tasks of its own.
                return await open_node_store(self.options, stack)
        except BaseExceptionGroup as group:
            failure = group.exceptions[0]
        finally:
            # Above the store on the stack, so that it is let go of first, and whatever has become of either.
            stack.push_async_callback(cluster.disconnect)
        # Whichever was first: the other was cancelled for it.
        raise failure

    def _cluster(self) -> Cluster | None:
        if self.options.cluster is None or self._commons is None:
            return None
        return cluster_module("cluster").Cluster(
            self.options.cluster,
            self.runtime,
            node_id=self.runtime.node_id,
            commons=self._commons,
            session_ttl=self.options.session_ttl,
            capacity=self.options.max_sessions,
            fair=self.options.fairness is not None,
        )

    async def _start_sessions(self, stack: AsyncExitStack, placement: Placement) -> None:
        options = self.options
        kind = SessionKind(
            servers=self.servers,
            streams=self.resumable.standing,
            node_id=self.runtime.node_id,
            ttl=options.session_ttl,
            max_state=options.max_state,
            answer_timeout=options.answer_timeout,
            interleaved=options.turns == "interleaved",
            helpers=self.helpers,
        )
        self.relay = kind.relay = Relay(self.servers, self.resumable.standing)
        stack.callback(self.relay.close)
        kind.limits = self.limiter
        observer = placement.observer
        heard_by: list[SessionEnded] = []
        if self.audit is not None:
            heard_by.append(partial(audit_end, self.audit))
        if self.limiter is not None:
            heard_by.append(self.limiter.session_over)
        if heard_by:
            observer = self.ends = SessionEnds(heard_by, observer)
        if options.hooks is not None:
            self.life = await stack.enter_async_context(
                SessionLife(options.hooks, node=self.runtime.node_id, inner=observer, takers=placement.takers)
            )
            observer, kind.opened = self.life, self.life.opened
        self.registry = kind.registry = Registry(
            store=self.store,
            kinds=[kind],
            gate=placement.gate,
            observer=observer,
            owner=self.runtime.node_id,
            max_live=options.max_sessions,
            idle_after=options.idle_after,
            memory_pressure=None if options.max_memory is None else memory_pressure(options.max_memory),
            mailbox_size=options.mailbox_size,
            fair=options.fairness is not None,
            store_timeout=options.store_timeout,
        )
        await stack.enter_async_context(self.registry)

    @property
    def _ended_asleep(self) -> Callable[[Record], None] | None:
        """Told of the record of a session that was ended without being in memory; None where nobody wants to know."""
        told = [each.ended_asleep for each in (self.ends, self.life) if each is not None]
        if not told:
            return None

        def tell(record: Record) -> None:
            for each in told:
                each(record)

        return tell

    def _open_edge(self, stack: AsyncExitStack, placement: Placement, tasks: TaskOwner) -> None:
        options, streams = self.options, self.resumable.table
        permits = None if self.limiter is None else self.limiter.permits
        posts = Posts(BodyReader(limit=options.max_body, timeout=options.body_timeout))
        if "handshake" in options.eras:
            self.handshake = HandshakeLeg(
                registry=self.registry,
                servers=self.servers,
                streams=streams,
                standing=self.resumable.standing,
                resumption=self.resumable.resumption,
                posts=posts,
                session_ttl=options.session_ttl,
                observe_call=self._observe_call,
                announce=placement.announce,
                relay=self.relay,
                audit=self.audit,
                permits=permits,
            )
        if "modern" in options.eras:
            self.modern = ModernLeg(
                registry=self.registry,
                servers=self.servers,
                tasks=tasks,
                handles=HandleCalls(
                    self.registry,
                    ttl=options.session_ttl,
                    ended=partial(streams.end, logged=False),
                    announce=placement.announce,
                    helpers=self.helpers,
                    limits=self.limiter,
                ),
                posts=posts,
                max_calls=MAX_STATELESS_CALLS,
                max_listening=MAX_LISTENING,
                fair=options.fairness is not None,
                observe_call=self._observe_call,
                audit=self.audit,
                permits=permits,
            )
            stack.callback(self.modern.cancel_all)
        fairness = options.fairness
        if fairness is not None:
            self.admission = Admission(fairness)
            self.threads = BlockingThreads(
                per_tenant=fairness.blocking_threads, in_all=fairness.blocking_threads_in_all
            )
            stack.enter_context(thread_limiter())
        if options.tenants is not None:
            self.open_streams = OpenStreams(options.tenants, check_every=options.credential_check)
            stack.callback(tasks.spawn(self.open_streams.run()).cancel)
        self.news = TenantNews(
            self._changes,
            self._hooks,
            resolver=options.tenants,
            servers=self.servers,
            relay=self.relay,
            open_streams=self.open_streams,
            helpers=self.helpers,
        )
        stack.callback(tasks.spawn(self.news.run()).cancel)
        self.notices = Notices(self.registry, placement.router)
        errands = SessionErrands(
            self.registry,
            max_state=options.max_state,
            ended=streams.end,
            ended_asleep=self._ended_asleep,
            opened=None if self.audit is None else partial(audit_opening, self.audit),
            updated=None if self.audit is None else partial(audit_update, self.audit),
            announce=placement.announce,
            limits=self.limiter,
        )
        self.session_calls = HostCalls(ERRAND, placement.router, errands.serve)
        self.edge = Edge(
            guard=self._guard,
            tenants=options.tenants,
            posts=posts,
            handshake=self.handshake,
            modern=self.modern,
            numbers=self._numbers,
            router=placement.router,
            host_legs={NOTICE: self.notices.serve, ERRAND: errands.serve},
            audit=self.audit,
            admission=self.admission,
            open_streams=self.open_streams,
            threads=self.threads,
        )

    async def tenant_changed(self, tenant: str) -> None:
        """See `Runtime.tenant_changed`."""
        await self.news.apply(tenant)
        if self.cluster is not None:
            await self.cluster.tenant_changed(tenant)

    async def drain(self, timeout: float) -> None:
        """Hand sessions to other nodes, close standing streams, finish the turns that run or wait, and save.

        Turns that take longer than `timeout` seconds are cancelled, which their clients are told.
        """
        if self.cluster is not None:
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.cluster.drain()
            timeout = max(timeout - (time.monotonic() - began), 0.1)
        self.end_listening()
        began = time.monotonic()
        await self.registry.drain(timeout)
        await self.resumable.flush(max(timeout - (time.monotonic() - began), 1.0))
        if self.cluster is not None:
            # What has been run must reach who waits for it at other nodes, however slowly it is read there.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(timeout - (time.monotonic() - began), 1.0)):
                    await self.cluster.finish()

    def end_listening(self) -> None:
        """See `Runtime.end_listening`."""
        if self.cluster is not None:
            self.cluster.router.end_listening()
        self.resumable.table.close_standalone()
        if self.modern is not None:
            self.modern.end_listening()

    async def not_ready(self, *, draining: bool) -> list[str]:
        """Why this node should get no new work, in words; empty if it should."""
        reasons = ["draining"] if draining else []
        if self.cluster is not None and not reasons:
            reasons += self.cluster.not_ready()
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await self.store.ping()
        except TimeoutError:
            # Some say nothing when their disk is full, but in their log.
            reasons.append(
                f"the store did not answer within {_READY_TIMEOUT:g} s: it hangs, has too much to do, or cannot write "
                "(a full disk?); its log may tell"
            )
        except StoreError as error:
            reasons.append(f"the store is out of reach: {error}")
        return reasons

    def stats(self) -> dict[str, int | float]:
        """Plain numbers. Names that end in `_total` only grow."""
        numbers: dict[str, int | float] = {f"sessions_{name}": value for name, value in self.registry.stats().items()}
        numbers |= self.resumable.stats()
        numbers |= self.relay.stats()
        numbers |= self.news.stats()
        if self.modern is not None:
            numbers["stateless_calls_running"] = len(self.modern.running)
            numbers["listening_streams"] = len(self.modern.listening)
        numbers |= {f"tenant_{name}": value for name, value in self.helpers.stats().items()}
        for part in (
            self.open_streams,
            self.audit,
            self.life,
            self.admission,
            self.threads,
            self.limiter,
            self.cluster,
        ):
            if part is not None:
                numbers |= part.stats()
        for prefix, part in (("tenants", self.options.tenants), ("store", self.store)):
            stats = getattr(part, "stats", None)
            if callable(stats):
                told = cast("dict[str, int | float]", stats())
                numbers |= {f"{prefix}_{name}": value for name, value in told.items()}
        return numbers
