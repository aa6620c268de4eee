"""`Cluster`: one node's part in its cluster, put together."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from nats.errors import Error as NatsError

from ...actors.clock import Clock, SystemClock
from ...actors.task_owner import TaskOwner
from ...stores import Address, Record, SessionStore
from ...stores.nats.bucket import Bucket
from ...stores.nats.connection import translated
from ..link import SEALED, Link, Seals
from ..link.nats_wire import NatsWire
from ..telemetry.metrics import Latency
from ..wire.routing import Placement
from .client_watch import ClientWatch
from .cluster_connection import DIRECTORY_TIMEOUT, ClusterConnection
from .commons import ClusterCommons
from .control import Control
from .counts import Counts
from .hand_off import HandOff
from .holdings import Holdings
from .keep_alive import KeepAlive
from .lease_effects import LeaseEffects
from .membership import RENEWALS, Membership
from .move_watch import watch_the_move
from .names import Names, checked_node
from .nats_api import listening
from .operations import operations
from .options import ClusterOptions
from .orders import Orders
from .own_news import OwnNews
from .ownership import Ownership
from .router import ClusterRouter
from .tenant_journal import TENANTS, TenantJournal

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from ...actors import Registry
    from ...actors.session.servers import Servers
    from ..runtime import Runtime
    from ..streams.streams import StreamTable

__all__ = ["Cluster"]

logger = logging.getLogger("understudy.cluster")

PATIENCE: Final = 10.0


class Cluster:
    """Made by `Runtime`, which has it `connect`, enters it, and gives it what it needs with `placement` and `join`.

    `join` makes the node a member; `leave` undoes that, leaving the block ends its work, and `disconnect` the rest.
    """

    def __init__(
        self,
        options: ClusterOptions,
        runtime: Runtime,
        *,
        node_id: str,
        commons: ClusterCommons,
        session_ttl: float,
        capacity: int,
        fair: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.options = options
        self.runtime = runtime
        self.node_id = checked_node(node_id)
        self.names = Names(options.name)
        self.commons = commons
        self.counts = Counts()
        self.failover = Latency()
        self.journal = TenantJournal()
        self.ended_asleep: Callable[[Record], None] | None = None
        """Told of a session that an operator ends while no node has it in memory, by its last record."""
        self.ownership = Ownership(f"{node_id}.none", lease=options.lease)
        self.store: SessionStore
        self.registry: Registry
        self.streams: StreamTable
        self.link: Link
        self._capacity = capacity
        self._fair = fair
        self._clock = clock or SystemClock()
        self._versions = options.versions
        self.seals = Seals(options.name)
        commons.keys.tell(self.seals.use)
        self._nats = ClusterConnection(
            options, self.names, self.node_id, session_ttl=session_ttl, lost=self._disconnected, found=self._reconnected
        )
        self._stack = AsyncExitStack()
        self._left = True
        """It is not, or no longer, a member."""

    async def connect(self) -> None:
        """Connect to NATS, and open what the nodes have in common. Needs no store: that may open meanwhile. However it
        ends, `disconnect` is due.

        Raises:
            NatsUnavailable: No server, it refused us, or it has no JetStream; the message says what to do.
        """
        await self._nats.open(self.commons)
        self.connection = self._nats.client
        self.directory = self._nats.directory
        self.settings = self._nats.settings

    async def disconnect(self) -> None:
        """Undo `connect`, as far as it came. Idempotent."""
        await self._nats.aclose()

    @property
    def connected(self) -> bool:
        """Whether NATS is in reach."""
        return self._nats.alive

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            # Last of all: until then tools may publish what others are to hear.
            stack.push_async_callback(self.commons.hub.detach)
            self._tasks = await stack.enter_async_context(TaskOwner())
            self.holdings = Holdings(self.ownership, self.directory, self._clock, self._tasks, in_use=self._in_use)
            self.holdings.moved = self._moved
            self._keep_alive = KeepAlive(self._tasks)
            self._client_watch = ClientWatch(self._tasks)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def placement(self, servers: Servers, store: SessionStore) -> Placement:
        """What makes the node one of this cluster. `store`: where the sessions are, of all its nodes."""
        self.store = store
        self.router = ClusterRouter(
            self.ownership,
            self.directory,
            self.holdings,
            store=self.store,
            servers=servers,
            clock=self._clock,
            keep_alive=self._keep_alive,
            client_watch=self._client_watch,
            counts=self.counts,
            failover=self.failover,
            patience=max(PATIENCE, 2 * self.options.lease + 2.0),
        )
        return Placement(
            self.router,
            self.router,
            self.holdings,
            self.holdings.announce,
            writer=lambda: self.ownership.me,
            writer_alive=self._writer_alive,
            takers=lambda: self.ownership.peers.roomiest(self._clock.monotonic()) is not None,
        )

    def _writer_alive(self, writer: str) -> bool:
        return self.ownership.peers.believes(writer, self._clock.monotonic())

    async def counters(self) -> Bucket:
        """The bucket in which the nodes count together, made if it is not there.

        Raises:
            ClusterError, NatsUnavailable: It cannot be made.
        """
        return await self._nats.counters()

    def lives(self, incarnation: str) -> bool | None:
        """Whether another node acts as this incarnation; None if it was never heard of."""
        peers, now = self.ownership.peers, self._clock.monotonic()
        if peers.believes(incarnation, now):
            return True
        return False if peers.is_dead(incarnation, now) else None

    # Membership

    async def join(self, registry: Registry, streams: StreamTable) -> None:
        """Become a member: from here on other nodes send requests, and this one may own sessions.

        Raises:
            NodeIdTaken, StoreNotShared, ClusterError: The cluster does not take this node; the message says why.
        """
        self.registry = registry
        self.streams = streams
        news = OwnNews(self.options, self.ownership, self.commons, self.store, registry, capacity=self._capacity)
        streams.on_empty = self._streams_gone
        self.router.registry = registry
        self._drain = HandOff(
            self.ownership,
            registry,
            self.holdings,
            self._clock,
            self.counts,
            moved=self._moved,
            rate=self.options.handoff_rate,
        )
        wire = self._wire = NatsWire(self.connection, prefix=self.names.prefix)
        self.link = Link(
            wire,
            me=f"{self.node_id}.{secrets.token_hex(4)}",
            serve=self.router.serve,
            seals=self.seals,
            versions=self._versions,
            fair=self._fair,
        )
        async with AsyncExitStack() as stack:
            self.membership = Membership(
                self.connection,
                self._nats.buckets.nodes,
                self.names,
                self.ownership,
                node=self.node_id,
                news=news.tell,
                events=LeaseEffects(self.link, registry, self.holdings, self.commons, self.counts, moved=self._moved),
                clock=self._clock,
            )
            # After the link has told the others what has not run here: who hears first that this node is gone must
            # take all that it has sent here to be in doubt.
            stack.push_async_callback(self.membership.leave)
            await stack.enter_async_context(self.link)
            # Before the link ends: who finds nobody here then knows that this is no crash.
            stack.push_async_callback(self.membership.give_notice)
            self.router.link = self.link
            self.router.strike = self.membership.strike
            await self.membership.join(lambda: news.check(self.ownership.peers.alive(self._clock.monotonic())))
            self.control = await stack.enter_async_context(
                Control(
                    self.connection,
                    self.names,
                    self.node_id,
                    operations(self),
                    Orders(self.seals, self.node_id),
                    takes_plain=self._versions[0] < SEALED,
                )
            )
            await self.commons.hub.attach(self.connection, self.names.bus, self._told(), node=self.node_id)
            # Its numbers can be checked as soon as the others know under what name they are.
            self.membership.renew_soon()
            await stack.enter_async_context(listening(self.connection, self.names.settings, self._settings_changed))
            try:
                async with asyncio.timeout(DIRECTORY_TIMEOUT):
                    await self.journal.learn(self.settings)
            except (NatsError, OSError, TimeoutError) as error:
                raise translated(error, "reading which tenants have changed") from error
            renewal = self.options.lease / RENEWALS
            tasks = await stack.enter_async_context(TaskOwner())
            for work in (
                self.membership.renew_forever(),
                self.membership.watch_forever(),
                self.holdings.sweep_forever(),
                self.commons.hub.watch_forever(self._told, renewal),
                self.journal.watch_forever(self.settings),
                watch_the_move(self.store, self._clock, changed=self.membership.renew_soon),
                self.commons.keep_keys_forever(
                    self.settings,
                    self.keys_of_others,
                    every=self.options.key_rotation,
                    soon=renewal,
                    learned=self.membership.renew_soon,
                ),
            ):
                stack.callback(tasks.spawn(work).cancel)
            self._membership_stack = stack.pop_all()
        self._left = False
        if self._versions[0] < SEALED:
            logger.warning(
                "this node takes unsigned tenant contexts (link versions from %d on): whoever reaches NATS can call in "
                'any tenant\'s name. When all nodes speak version %d, start them with unsigned_contexts="refuse"',
                self._versions[0],
                SEALED,
            )
        logger.info("node %s is in cluster %s as %s", self.node_id, self.options.name, self.ownership.me)

    async def leave(self) -> None:
        """Be no member any more: the others find nobody here, and claim what is asked of them."""
        self._left = True
        await self._membership_stack.aclose()

    def _told(self) -> dict[str, int]:
        """What the living nodes have published on the bus, by what their leases tell."""
        alive = self.ownership.peers.alive(self._clock.monotonic())
        return {peer.news.bus: peer.news.published for peer in alive if peer.news.bus}

    def keys_of_others(self) -> dict[str, tuple[str, ...]]:
        """Fingerprints of the keys with which each living node opens `requestState`, by its id."""
        return {peer.news.node: peer.news.keys for peer in self.ownership.peers.alive(self._clock.monotonic())}

    async def tenant_changed(self, tenant: str) -> None:
        """Have all other nodes hear that a tenant has changed.

        Raises:
            ClusterError: They may not.
        """
        await self.journal.record(self.settings, tenant)

    async def _settings_changed(self, message: Msg) -> None:
        if message.subject.endswith(f".{TENANTS}"):
            self.journal.look_soon()
        else:
            self.commons.look_at_keys()

    def _disconnected(self) -> None:
        if self._left:
            return
        logger.warning("the connection to NATS is lost; sessions go on while the lease lasts")

    def _reconnected(self) -> None:
        if self._left:
            return
        self._wire.reconnected()
        self.ownership.reconnected(self._clock.monotonic())
        logger.info("connected to NATS again")
        self.membership.renew_soon()
        self.commons.hub.reconnected()
        self.commons.look_at_keys()
        self.journal.look_soon()

    # What is where

    def _in_use(self, address: Address) -> bool:
        return address in self.registry or self.streams.holds(address)

    def _streams_gone(self, address: Address) -> None:
        self.holdings.rest(address)

    def _moved(self, address: Address) -> None:
        self.streams.move(address)

    # Draining

    async def drain(self) -> None:
        """Take no new sessions and move all to other nodes. Idempotent; the node goes on as an edge.

        Waits for turns that run: bound it from outside.
        """
        self.ownership.draining = True
        self.registry.close_door()
        self.membership.renew_soon()
        await self._drain.run()

    async def finish(self) -> None:
        """Until other nodes have the answers of their calls that run here now. Bound it from outside."""
        await self.link.finish()

    def undrain(self) -> None:
        """Take new sessions again."""
        self.ownership.draining = False
        self.registry.reopen()
        self.membership.renew_soon()

    # Looking inside

    def not_ready(self) -> list[str]:
        """Why this node should get no new work."""
        if self.ownership.draining:
            return ["draining: its sessions move to other nodes"]
        if not self.connected:
            return [f"NATS is out of reach: {self._nats.why_not or self.options.settings.where}"]
        if not self.ownership.may_run(self._clock.monotonic()):
            return [f"no lease: {self.membership.why_not or 'it ran out'}"]
        return []

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        now = self._clock.monotonic()
        counts = self.counts
        return {
            "cluster_peers": sum(1 for _ in self.ownership.peers.alive(now)),
            "cluster_lease_seconds_left": max(0.0, self.ownership.lease_left(now)),
            "cluster_connected": int(self.connected),
            **{f"cluster_{name}": value for name, value in self.ownership.stats().items()},
            **{f"cluster_{name}": value for name, value in self.holdings.stats().items()},
            **{f"cluster_directory_{name}": value for name, value in self.directory.stats().items()},
            **{f"cluster_{name}": getattr(counts, name) for name in counts.__slots__},
            **{f"link_{name}": value for name, value in self.link.stats().items()},
            "cluster_lease_renewals": self.membership.renewals,
            "cluster_lease_renewals_failed": self.membership.renewals_failed,
            "cluster_bus_published": self.commons.hub.published,
            "cluster_bus_heard": self.commons.hub.heard,
            "cluster_bus_failed": self.commons.hub.failed,
            "cluster_bus_gaps": self.commons.hub.gaps,
            "cluster_bus_rereads": self.commons.hub.rereads,
            "cluster_key_rotations": self.commons.keys.rotations,
            "cluster_orders_refused": self.control.refused,
            "cluster_keys": len(self.commons.keys.fingerprints),
        }
