"""`Link`: forwards calls to other nodes, and serves theirs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from types import TracebackType
from typing import Final, Self

from ...actors.clock import Clock, SystemClock
from ...actors.task_owner import TaskOwner
from ..errors import ConfigurationError
from ..fairness.shares import Shares
from .batch import CorruptBatch, ForeignBatch, ForgedBatch, UnsealedBatch, decode_batch, encode_batch
from .counters import LinkCounters
from .errors import CallFailed, LinkClosed, NotRun, PeerGone, Unsendable
from .head import CallHead
from .head_book import HeadBook
from .inbound import InboundCall
from .incarnation import checked_incarnation
from .lives import Lives
from .outbound import Send
from .path import Path
from .publisher import Publisher
from .seals import Seal, Seals
from .serving import Serving
from .session import PeerSession
from .settling import Settlements
from .suspicion import Suspicion
from .versions import SEALED, VERSION, Versions, checked_versions, negotiate
from .wire import Wire

__all__ = ["Link"]

logger = logging.getLogger(__name__)

MIN_PAYLOAD: Final = 16 * 1024
MAX_PATHS: Final = 4096
REGROUP: Final = 3.0
"""Seconds after a reconnect for which a peer that nobody hears is taken to be reconnecting itself, not gone."""
MANY: Final = 16
"""Frames of a batch upon which what it has caused does not wait for others to add to it."""
FINISH_EVERY: Final = 0.01
"""Seconds between two looks at what has not left."""
PATIENCE: Final = 30.0
"""Seconds after which a peer that answers nothing is taken for gone, whatever membership says."""


class Link:
    """The path between this node and all others. `async with link:` runs it and owns its tasks.

    Leaving it cancels the calls that are served, tells their callers, and ends forwards with `PeerGone`.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        me: str,
        serve: Callable[[InboundCall], Awaitable[None]],
        seals: Seals,
        clock: Clock | None = None,
        versions: Versions = (SEALED, VERSION),
        max_calls: int = 10_000,
        fair: bool = False,
        patience: float = PATIENCE,
        regroup: float = REGROUP,
    ) -> None:
        """`me`: this node's incarnation. `serve` answers the calls of peers. `max_calls`, in each direction;
        `fair`: whether tenants share them (`Shares`).

        no-wrong-tenant: what `versions` below `SEALED` carry anybody can write who reaches NATS, tenants included.

        Raises:
            ConfigurationError: `me` or `versions` is none, or `max_calls` is below 1.
        """
        if max_calls < 1:
            raise ConfigurationError(f"max_calls {max_calls} must be at least 1")
        self.clock: Clock = clock or SystemClock()
        self.counters = LinkCounters()
        self._wire = wire
        self._publisher = Publisher(wire, self.counters, self.clock, self._under_way)
        self.mark = self._publisher.mark
        """A path has something to publish."""
        self._me = checked_incarnation(me)
        self._versions = checked_versions(versions)
        self._patience = patience
        self._regroup = regroup
        self._paths: dict[str, Path] = {}
        self._lives = Lives()
        self._book = HeadBook()
        self._seals = seals
        self._peer_seals: dict[str, Seal] = {}
        """What batches of each peer have to bear."""
        self._suspicion = Suspicion(self.counters, self.clock)
        self._peer_versions: dict[str, Versions] = {}
        self._closing = True
        self._stopped = False
        self._forwarding = Shares(max_calls, fair=fair)
        self._regrouping_until = 0.0
        self._tasks = TaskOwner()
        self._settlements = Settlements(wire, self.clock, self._tasks, most=MAX_PATHS)
        self.serving = Serving(serve, self.counters, max_calls=max_calls, fair=fair)

    async def __aenter__(self) -> Self:
        """
        Raises:
            ConfigurationError: The wire carries too little at once.
        """
        if self._wire.max_payload < MIN_PAYLOAD:
            raise ConfigurationError(
                f"NATS carries {self._wire.max_payload} bytes at once; set its max_payload to at least {MIN_PAYLOAD}"
            )
        await self._tasks.__aenter__()
        try:
            await self._wire.listen(self._me, self)
        except BaseException as error:
            await self._tasks.__aexit__(type(error), error, None)
            raise
        self._publishing = self._tasks.spawn(self._publisher.run())
        self._closing = False
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing = True
        self._settlements.wait_no_more()
        await self.serving.close()
        # What still comes is refused. Dropped in silence, its callers would have to take it for run.
        await self._wire.drain()
        self._publisher.stop()
        await asyncio.wait([self._publishing])
        for path in list(self._paths.values()):
            await self._wire.publish(path.peer, path.session.farewell(), "0-0")
            self.lost(path, "this node stops")
        self._settlements.release()
        self._stopped = True
        await self._tasks.__aexit__(exc_type, exc, tb)
        await self._wire.close()

    async def finish(self) -> None:
        """Until the calls of peers that run now have ended, and what was to be said to peers has left. Bound it from
        outside. Cancellation leaves it all as it is.
        """
        await self.serving.finish()
        while any(path.session.backlog for path in self._paths.values()):
            await self.clock.sleep(FINISH_EVERY)

    async def forward(self, peer: str, head: CallHead, body: bytes, send: Send) -> None:
        """Have `peer` answer a request, and play its response into `send` (ASGI messages) until it is complete.

        A slow `send` slows the peer's handler down, and no other call.

        Raises:
            NotRun: The peer refused; surely nothing ran.
            PeerGone: The peer died, was declared gone, or answers no more; `maybe_ran` tells what is known.
            CallFailed: The peer's handler ended without a complete response.
            Unsendable: The head does not fit a frame, or holds what cannot be packed. Nothing was sent.
            LinkClosed: The link does not run.

        What `send` raises passes through. Then, and when cancelled, the peer is told that nobody waits any more.
        """
        if self._closing:
            raise LinkClosed
        tenant = head.tenant.tenant
        if self._forwarding.full(tenant) is not None:
            raise NotRun(peer, "busy", {"forwarding": self._forwarding.taken})
        path = self._paths.get(peer) or self._open(peer)
        self._forwarding.take(tenant)
        self.counters.forwarded += 1
        began = self.clock.monotonic()
        try:
            while True:
                call = path.open(body)
                try:
                    await call.run(head, send, began)
                    return
                except PeerGone as gone:
                    if gone.maybe_ran or not path.replaced:
                        raise
                    # The peer is there and has only lost, or given up on, an earlier life of this path.
                    path = self._paths.get(peer) or self._open(peer)
                finally:
                    call.leave()
        except NotRun:
            self.counters.not_run += 1
            raise
        except CallFailed:
            self.counters.failed += 1
            raise
        except PeerGone:
            self.counters.gone += 1
            raise
        finally:
            self._forwarding.give_back(tenant)

    def peer_gone(self, peer: str) -> None:
        """Membership says that this incarnation is no more. Forwards to it end, and its callers wait no more."""
        self._peer_versions.pop(peer, None)
        self._settlements.peer_gone(peer)
        path = self._paths.get(peer)
        if path is not None:
            self.settle(path, "its lease is over")

    def peer_leaves(self, peer: str) -> None:
        """This incarnation stops, and says which calls it has not run before it is gone."""
        self._settlements.peer_leaves(peer)

    def rename(self, me: str) -> None:
        """This node has a new incarnation. Everything that the old one did is over; what is addressed to it is dropped.

        Raises:
            ConfigurationError: `me` is no incarnation.
        """
        checked_incarnation(me)
        if me == self._me:
            return
        for path in list(self._paths.values()):
            self._say_farewell(path, "this node has a new incarnation")
        self._me = me
        self._lives = Lives()
        self._peer_seals.clear()
        self._publisher.rename(me, self)

    @property
    def renaming(self) -> bool:
        """Whether peers cannot reach the new incarnation yet."""
        return self._publisher.renaming

    def set_peer_versions(self, peer: str, versions: Versions) -> None:
        """The oldest and newest wire version that `peer` has announced."""
        if len(self._peer_versions) >= MAX_PATHS and peer not in self._peer_versions:
            del self._peer_versions[next(iter(self._peer_versions))]
        self._peer_versions[peer] = versions
        path = self._paths.get(peer)
        version = negotiate(self._versions, versions)
        if path is not None and version is not None:
            path.session.speak(version)

    def stats(self) -> dict[str, int]:
        """Plain numbers, for metrics."""
        total = replace(self.counters)
        for path in self._paths.values():
            path.session.count_into(total)
        numbers: dict[str, int] = asdict(total)
        numbers["paths"] = len(self._paths)
        numbers["forwarding"] = self._forwarding.taken
        numbers["serving"] = len(self.serving)
        numbers["assembling_bytes"] = self.serving.assembling
        numbers["backlog_bytes"] = sum(path.session.backlog for path in self._paths.values())
        numbers["unacknowledged_bytes"] = sum(path.session.in_flight for path in self._paths.values())
        return numbers

    # What the wire tells.

    def on_payload(self, peer: str, payload: bytes) -> None:
        """`peer` has published to us. What is no batch, or damaged, is counted and dropped."""
        if self._stopped or self._publisher.renaming:
            return
        self.counters.batches_in += 1
        self.counters.bytes_in += len(payload)
        try:
            batch = decode_batch(payload, self._versions, self._book, self._peer_seals.get(peer) or self._seal_of(peer))
        except ForeignBatch as error:
            if isinstance(error, UnsealedBatch):
                self.counters.unsealed_refused += 1
                self._suspicion.note(peer, error)
            else:
                self.counters.foreign += 1
            return
        except ForgedBatch as error:
            self.counters.forged += 1
            self._suspicion.note(peer, error)
            return
        except CorruptBatch as error:
            self.counters.corrupt += 1
            logger.debug("a batch from %s was dropped: %s", peer, error)
            return
        if batch.version < SEALED:
            self.counters.unsealed_taken += 1
        before = self._settlements.under_way.get((peer, batch.path - 1))
        if before is not None:
            # Its farewell, or a word of the life after: of that one it says nothing more.
            before.heard_out()
        path = self._paths.get(peer)
        if path is not None and batch.path > path.session.path:
            path.replaced = True
            self.settle(path, "it has given up on this node")
            path = None
        number = self._lives.next(peer) if path is None else path.session.path
        if batch.path < number:
            settling = self._settlements.under_way.get((peer, batch.path))
            if settling is not None:
                settling.on_batch(batch, self.clock.monotonic())
            self.counters.stale += 1
            self._publisher.note(peer, encode_batch(batch.version, number, 0, 0, [], Seal(self._seals, self._me, peer)))
            return
        if path is None:
            if batch.seq == 0 and not batch.frames:
                # A farewell: it says which life comes next, and begins none.
                self._lives.over(peer, batch.path - 1)
                return
            path = self._begin(peer, batch.path, batch.version)
        if batch.version > path.session.version and peer not in self._peer_versions:
            path.session.speak(batch.version)
        self._publisher.gather(others=len(batch.frames) > 1)
        try:
            path.on_batch(batch, self.clock.monotonic())
        finally:
            self._publisher.gathered(many=len(batch.frames) >= MANY)

    def on_no_responders(self, peer: str, tag: str) -> None:
        """What was published with `tag` reached nobody."""
        if self._stopped or self._publisher.renaming:
            return
        self.counters.no_responders += 1
        path = self._paths.get(peer)
        number, _, seq = tag.partition("-")
        if not number.isdecimal() or not seq.isdecimal():
            return
        if path is None or int(number) != path.session.path:
            settling = self._settlements.under_way.get((peer, int(number)))
            if settling is not None:
                settling.path.session.on_undelivered(int(seq), self.clock.monotonic())
            return
        path.on_undelivered(int(seq), lost=self.clock.monotonic() >= self._regrouping_until)

    def on_reconnect(self) -> None:
        """The wire was interrupted and is there again: what is not acknowledged goes once more."""
        now = self.clock.monotonic()
        self._regrouping_until = now + self._regroup
        for path in self._paths.values():
            path.on_reconnect(now)

    # What paths ask.

    def lost(self, path: Path, why: str) -> None:
        """`path` cannot go on."""
        if not path.over and not path.settling:
            self._take_out(path)
            path.end(why)

    def settle(self, path: Path, why: str, *, last_words: bool = False) -> None:
        """The peer of `path` says, or is said, to be gone: its calls end once it is known which reached nobody.

        `last_words`: if it is known to leave, what may have reached it ends when its farewell has come, or the time for
        that is over: it listens no more before it has said what it has not run.
        """
        if path.over or path.settling:
            return
        if self._settlements.full:
            self.lost(path, why)
            return
        self._take_out(path)
        self._settlements.begin(path, why, last_words=last_words)

    # How it is done.

    def _take_out(self, path: Path) -> None:
        self.counters.paths_lost += 1
        del self._paths[path.peer]
        self._publisher.forget(path)
        self._lives.over(path.peer, path.session.path)

    def _under_way(self) -> int:
        return self._forwarding.taken + len(self.serving)

    def _open(self, peer: str) -> Path:
        """
        Raises:
            NotRun: No wire version is common.
            Unsendable: `peer` is no other node.
        """
        if peer == self._me:
            raise Unsendable(f"{peer} is this node; a call to it needs no link")
        checked_incarnation(peer)
        theirs = self._peer_versions.get(peer)
        # Of a peer that has not announced itself, only that it speaks what the oldest of us do can be hoped for.
        version = self._versions[0] if theirs is None else negotiate(self._versions, theirs)
        if version is None:
            raise NotRun(peer, "version", {"ours": list(self._versions), "theirs": list(theirs or ())})
        return self._begin(peer, self._lives.next(peer), version)

    def _begin(self, peer: str, number: int, version: int) -> Path:
        if len(self._paths) >= MAX_PATHS:
            idle = next((path for path in self._paths.values() if path.idle), None)
            self.lost(idle or next(iter(self._paths.values())), "there are too many paths")
        theirs = self._peer_versions.get(peer)
        common = None if theirs is None else negotiate(self._versions, theirs)
        session = PeerSession(
            path=number,
            version=common or version,
            max_payload=self._wire.max_payload,
            seal=Seal(self._seals, self._me, peer),
            book=self._book,
            give_up=self._patience,
        )
        path = self._paths[peer] = Path(self, peer, session, patience=self._patience)
        return path

    def _seal_of(self, peer: str) -> Seal:
        if len(self._peer_seals) >= MAX_PATHS:
            self._peer_seals.clear()
        seal = self._peer_seals[peer] = Seal(self._seals, peer, self._me)
        return seal

    def _say_farewell(self, path: Path, why: str) -> None:
        self._publisher.note(path.peer, path.session.farewell())
        self.lost(path, why)
