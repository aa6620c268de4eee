"""`Membership`: keeps this node's lease in NATS, and hears of the others'."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, cast

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from ...actors.clock import Clock
from ...stores import Address
from ...stores.nats.connection import translated
from .control import ControlError, NobodyThere, ask
from .errors import ClusterError, NodeIdTaken
from .names import Names
from .nats_api import keys_of, subscribe
from .node_news import pack_news, unpack_news
from .ownership import Ownership
from .peers import NodeNews
from .striking import Striking

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js.kv import KeyValue

__all__ = ["Membership", "MembershipEvents"]

logger = logging.getLogger("understudy.cluster")

RENEWALS: Final = 3
"""In the time of one lease."""
TICKS: Final = 20
"""Looks at the clock in the time of one lease."""
SHORTEST_LOOK: Final = 0.001
"""Seconds after the end of a lease that is looked, so that it surely is over then."""
FORGET_AFTER: Final = 600.0
"""Seconds after which a dead node is no longer shown."""
JOIN_PATIENCE: Final = 10.0
"""Seconds that NATS may take to tell who is there when a node joins."""


class MembershipEvents(Protocol):
    """Who must know when leases come and go. On the event loop; must be quick."""

    async def renamed(self, incarnation: str) -> None:
        """This node is about to be `incarnation`: others must be able to reach it before they hear of it."""
        ...

    def lapsed(self, held: list[Address]) -> None:
        """The lease is over: every actor must leave."""
        ...

    def peer_news(self, news: NodeNews) -> None:
        """A node has renewed its lease."""
        ...

    def peer_dead(self, incarnation: str) -> None:
        """Nobody acts as this incarnation any more."""
        ...


class Membership:
    """One node's lease. Renewed by the node, so that nothing per session ever is (quiet-cluster)."""

    def __init__(
        self,
        connection: Client,
        bucket: Callable[[], Awaitable[KeyValue]],
        names: Names,
        ownership: Ownership,
        *,
        node: str,
        news: Callable[[str, int], NodeNews],
        events: MembershipEvents,
        clock: Clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`bucket` opens, or makes, the bucket of leases. `news(incarnation, serial)` is what a renewal tells."""
        self._connection = connection
        self._open_bucket = bucket
        self._names = names
        self._ownership = ownership
        self._node = node
        self._news = news
        self._events = events
        self._clock = clock
        self._wall = wall
        self._bucket: KeyValue
        self._revision = 0
        self._serial = 0
        self._renew_now = asyncio.Event()
        self._why_not = ""
        self._subscription: Subscription | None = None
        self._has_lease = False
        self._leaving = False
        self._striking = Striking(lambda: self._bucket, ownership)
        self.renewals = 0
        self.renewals_failed = 0

    @property
    def why_not(self) -> str:
        """Why the last renewal failed; empty if it did not."""
        return self._why_not

    # Joining and leaving

    async def join(self, fits: Callable[[], None]) -> None:
        """Become part of the cluster: hear of the others, and hold a first lease.

        `fits` is called when the others are known and this node is not yet; what it raises keeps the node out.

        Raises:
            NodeIdTaken: A living process has this node's id.
            ClusterError: No lease within its own length.
            NatsUnavailable: The others' leases cannot be read.
        """
        self._bucket = await self._open_bucket()
        self._subscription = await subscribe(self._connection, self._names.leases, self._on_lease)
        patience = self._clock.monotonic() + JOIN_PATIENCE
        while True:
            try:
                await self._hear_of_all()
                break
            except (NatsError, OSError, TimeoutError) as error:
                # A server that starts, or elects a leader, is slow for a while.
                if not isinstance(error, TimeoutError) or self._clock.monotonic() >= patience:
                    raise translated(error, "reading the leases of the nodes") from error
        fits()
        try:
            async with asyncio.timeout(max(self._ownership.lease, 5.0)):
                await self._take_over()
                while not await self._renew():
                    await self._clock.sleep(0.1)
        except TimeoutError:
            raise ClusterError(f"no lease from NATS: {self._why_not or 'no answer in time'}") from None
        except (NatsError, OSError) as error:
            raise translated(error, "reading the lease that an earlier process of this node has left") from error

    async def give_notice(self) -> None:
        """Own nothing from now on, and tell the others: who finds nobody here then need not strike the lease, and knows
        that this node says what it has not run before it is gone. Best effort, bounded.

        Nothing may renew the lease any more.
        """
        self._leaving = True
        held = self._ownership.resign()
        if held:
            self._events.lapsed(held)
        if not (self._has_lease and self._revision):
            return
        news = replace(self._news(self._ownership.me, self._serial), leaving=True)
        try:
            async with asyncio.timeout(1.0):
                try:
                    self._revision = await self._write(news)
                except KeyWrongLastSequenceError:
                    # Of a renewal that was cut short it is not known whether it was made.
                    found = await self._bucket.get(self._node, validate_keys=False)
                    present = unpack_news(found.value or b"")
                    if present is not None and present.incarnation == news.incarnation:
                        self._revision = found.revision or 0
                        self._revision = await self._write(news)
        except (NatsError, TimeoutError, OSError) as error:
            logger.debug("the others do not know that this node leaves: %r", error)

    async def leave(self) -> None:
        """Tell the others that this node is gone. Best effort, bounded: they would find out by themselves."""
        self._leaving = True
        try:
            async with asyncio.timeout(1.0):
                if self._subscription is not None:
                    await self._subscription.unsubscribe()
                # Never another's: one that was found in the way is not ours to end.
                if self._has_lease and self._revision:
                    await self._bucket.delete(self._node, last=self._revision, validate_keys=False)
        except (NatsError, TimeoutError, OSError) as error:
            logger.debug("the lease could not be given back: %r", error)

    async def _hear_of_all(self) -> None:
        for node in await keys_of(self._bucket):
            try:
                found = await self._bucket.get(node, validate_keys=False)
            except KeyNotFoundError:
                continue
            if found.value is not None and node != self._node:
                self._hear(found.value)

    async def _take_over(self) -> None:
        """See what an earlier process of this node's id has left."""
        try:
            found = await self._bucket.get(self._node, validate_keys=False)
        except KeyNotFoundError as missing:
            self._revision = _revision_of(missing)
            return
        self._revision = found.revision or 0
        earlier = unpack_news(found.value or b"")
        if earlier is None:
            return
        self._serial = earlier.serial
        try:
            await ask(self._connection, self._names, self._node, "ping", timeout=1.0)
        except NobodyThere:
            return
        except ControlError:
            pass
        raise NodeIdTaken(
            f"node id {self._node!r} is in use by process {earlier.pid} on {earlier.host or 'an unknown host'}: "
            "give each node an id of its own, or stop that process"
        )

    # The lease

    def renew_soon(self) -> None:
        """Tell the news now rather than with the next renewal."""
        self._renew_now.set()

    async def renew_forever(self) -> None:
        """Until cancelled."""
        interval = self._ownership.lease / RENEWALS
        while True:
            began = self._clock.monotonic()
            # Before: what is to be told may change while this renewal is under way.
            self._renew_now.clear()
            ok = await self._renew()
            wait = interval - (self._clock.monotonic() - began) if ok else interval / 5
            try:
                async with asyncio.timeout(max(wait, 0.01)):
                    await self._renew_now.wait()
            except TimeoutError:
                pass

    async def watch_forever(self) -> None:
        """Notice leases that run out, one's own first. Until cancelled."""
        while True:
            # A hung owner costs what is left of its lease, and not a look at the clock more.
            now = self._clock.monotonic()
            ends = min((peer.until for peer in self._ownership.peers.alive(now)), default=now + self._ownership.lease)
            await self._clock.sleep(min(self._ownership.lease / TICKS, ends - now + SHORTEST_LOOK))
            self.tick()

    def tick(self) -> None:
        """Look at the clock."""
        ownership = self._ownership
        now = self._clock.monotonic()
        self._let_go(ownership.lapse(now))
        for incarnation in ownership.peers.newly_dead(now):
            logger.warning("the lease of node %s has run out", incarnation)
            self._events.peer_dead(incarnation)
        for incarnation in ownership.peers.forget_dead(now, after=FORGET_AFTER):
            logger.debug("%s is forgotten", incarnation)

    def _let_go(self, held: list[Address] | None) -> None:
        if held is None:
            return
        logger.warning(
            "lease lost (%s): %d %s let go of; others may own them now",
            self._why_not or "the process was held up", len(held), "session is" if len(held) == 1 else "sessions are",
        )  # fmt: skip
        self._events.lapsed(held)
        self.renew_soon()

    async def strike(self, incarnation: str) -> None:
        """See `Striking.strike`."""
        await self._striking.strike(incarnation)

    async def _renew(self) -> bool:
        """One try to renew the lease, or to get one."""
        ownership = self._ownership
        self.tick()
        fresh = not ownership.may_run(self._clock.monotonic())
        try:
            async with asyncio.timeout(ownership.lease / RENEWALS):
                if fresh:
                    return await self._begin()
                return await self._prolong()
        except KeyWrongLastSequenceError:
            await self._disputed()
        except (NatsError, TimeoutError, OSError) as error:
            self._why_not = str(translated(error, "renewing it"))
        self.renewals_failed += 1
        return False

    async def _begin(self) -> bool:
        self._serial = max(int(self._wall() * 1000), self._serial + 1)
        incarnation = f"{self._node}.{self._serial:x}{secrets.token_hex(2)}"
        await self._events.renamed(incarnation)
        sent = self._clock.monotonic()
        self._revision = await self._put(incarnation)
        self._has_lease = True
        self._ownership.begin(incarnation, sent)
        self._why_not = ""
        self.renewals += 1
        return True

    async def _prolong(self) -> bool:
        sent = self._clock.monotonic()
        self._revision = await self._put(self._ownership.me)
        self._ownership.renewed(sent)
        self._why_not = ""
        self.renewals += 1
        return True

    async def _put(self, incarnation: str) -> int:
        return await self._write(self._news(incarnation, self._serial))

    async def _write(self, news: NodeNews) -> int:
        return await self._bucket.update(self._node, pack_news(news), last=self._revision or None, validate_keys=False)

    async def _disputed(self) -> None:
        """The lease is not as this node has written it last: NATS has lost it, or somebody else is this node."""
        try:
            async with asyncio.timeout(self._ownership.lease / RENEWALS):
                try:
                    found = await self._bucket.get(self._node, validate_keys=False)
                except KeyNotFoundError as missing:
                    self._revision = _revision_of(missing)
                    self._why_not = "another node has struck it from NATS, or NATS has lost it"
                    # Whoever struck it takes what is held here: nothing of it may be answered from memory any more.
                    self._let_go(self._ownership.struck())
                    return
        except (NatsError, TimeoutError, OSError) as error:
            self._why_not = str(translated(error, "reading it"))
            return
        self._revision = found.revision or 0
        other = unpack_news(found.value or b"")
        if other is None or other.incarnation == self._ownership.me or other.serial <= self._serial:
            # Our own renewal whose acknowledgement was lost, or an old state of a server that was restored.
            return
        # Until its lease is over by the bucket's own clock, no try of ours succeeds.
        self._revision = 0
        ousted = f"another process (pid {other.pid} on {other.host}) is node {self._node!r} now"
        if self._why_not != ousted:
            self._why_not = ousted
            logger.error("%s: give each node an id of its own", ousted)

    # The others

    async def _on_lease(self, message: Msg) -> None:
        node = message.subject.rpartition(".")[2]
        if node == self._node:
            if not message.data and not self._leaving:
                # Perhaps late, and of an earlier start: to renew tells.
                self.renew_soon()
            return
        if message.data:
            self._hear(message.data)
            return
        peer = self._ownership.peers.get(node)
        if peer is not None and (self._ownership.peers.left(peer.incarnation) or peer.news.leaving):
            self._events.peer_dead(peer.incarnation)

    def _hear(self, packed: bytes) -> None:
        news = unpack_news(packed)
        if news is None or news.node == self._node:
            return
        replaced = self._ownership.heard(news, self._clock.monotonic())
        if replaced is not None:
            self._events.peer_dead(replaced)
        self._events.peer_news(news)


def _revision_of(missing: KeyNotFoundError) -> int:
    """What a new value must replace: nothing, or the mark of one that was deleted."""
    entry = cast("KeyValue.Entry | None", missing.entry)  # pyright: ignore[reportUnknownMemberType]
    return entry.revision or 0 if entry is not None else 0
