"""`Peers`: what a node knows of the others, from their leases. Sans-I/O: time comes in through parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from .entry import node_of

__all__ = ["NodeNews", "Peer", "Peers"]

BELIEVED: Final = 0.95
"""Of a lease, by others, from when they heard: more than its holder's own share of it, which counts from before, and
little enough that what a hung owner costs, with the claims that follow, is a lease at most."""
MAX_PEERS: Final = 4096


@dataclass(frozen=True, slots=True)
class NodeNews:
    """What a node says of itself each time it renews its lease."""

    incarnation: str
    lease: float
    """Seconds that this renewal is good for."""
    url: str = ""
    pid: int = 0
    host: str = ""
    sessions: int = 0
    """Sessions in memory."""
    capacity: int = 1
    """Sessions that it may have in memory."""
    draining: bool = False
    versions: tuple[int, int] = (1, 1)
    """The oldest and the newest link version that it speaks."""
    serial: int = 0
    """Grows with each incarnation of the node: its Unix time in milliseconds where the clock does not go back."""
    build: str = ""
    """Version of understudy."""
    store: str = ""
    """What tells its store from others: nodes with different ones must not be one cluster."""
    next_store: str = ""
    """Likewise the store that it follows sessions to."""
    former_store: str = ""
    """Likewise the store that it moves sessions from."""
    left: bool = False
    """Sessions may be left there."""
    bus: str = ""
    """Under what name it numbers its publications on the bus; empty: it does not."""
    published: int = 0
    """The number of the last of them."""
    keys: tuple[str, ...] = ()
    """Fingerprints of the keys with which it opens `requestState`."""
    leaving: bool = False
    """Its last word: it owns nothing any more, takes nothing, and will not renew."""

    @property
    def node(self) -> str:
        return node_of(self.incarnation)


@dataclass(slots=True)
class Peer:
    """Another node, as last heard of."""

    news: NodeNews
    until: float
    """Local monotonic time at which its lease is over if nothing more is heard of it."""
    gone: bool = False
    """It is taken for dead: nobody answers at its address, it said goodbye, or its lease is over."""
    struck: bool = False
    """Its lease has been struck from NATS, or is its last: should it live, it cannot renew."""
    assigned: int = 0
    """Sessions sent there since it last told how many it has."""

    @property
    def incarnation(self) -> str:
        return self.news.incarnation

    @property
    def room(self) -> int:
        return self.news.capacity - self.news.sessions - self.assigned


class Peers:
    """The other nodes of the cluster. At most `MAX_PEERS`; those whose lease is long over go first."""

    def __init__(self) -> None:
        self._by_node: dict[str, Peer] = {}
        self._past: OrderedDict[str, bool] = OrderedDict()
        """Incarnations taken for dead that are not their nodes' present ones; True: it can never renew again."""

    def heard(self, news: NodeNews, now: float) -> str | None:
        """A renewal has arrived at `now`; the incarnation of the same node that it replaces, if it does."""
        before = self._by_node.get(news.node)
        if before is not None and news.serial < before.news.serial:
            # A late word of an incarnation that is over.
            return None
        if before is not None and before.incarnation == news.incarnation:
            before.news, before.until, before.assigned = news, now + news.lease * BELIEVED, 0
            # It renews, so it lives: whoever found nobody there found the network broken. Unless it says goodbye.
            before.gone = before.struck = news.leaving
            return None
        self._past.pop(news.incarnation, None)
        if before is not None:
            self._bury(before.incarnation, over=True)
        elif len(self._by_node) >= MAX_PEERS:
            del self._by_node[min(self._by_node, key=lambda node: self._by_node[node].until)]
        self._by_node[news.node] = Peer(news, now + news.lease * BELIEVED, news.leaving, news.leaving)
        return before.incarnation if before is not None else None

    def left(self, incarnation: str) -> bool:
        """It has said goodbye, or nobody answers at its address; False if that is no news."""
        peer = self._present(incarnation)
        if peer is None:
            return self._bury(incarnation, over=False)
        if peer.gone:
            return False
        peer.gone = True
        return True

    def strike(self, incarnation: str) -> None:
        """Its lease is no longer in NATS: should it live, it cannot renew."""
        peer = self._present(incarnation)
        if peer is None:
            self._bury(incarnation, over=True)
        else:
            peer.gone = peer.struck = True

    def forgive(self, until: float) -> None:
        """Believe in all whose leases ran out, or nobody was found at, `until` then: this node may have been deaf."""
        for peer in self._by_node.values():
            if not peer.struck:
                peer.gone = False
                peer.until = max(peer.until, until)

    def is_over(self, incarnation: str) -> bool:
        """Whether this incarnation can never renew again: a later one has taken its place, or it has been struck."""
        peer = self._present(incarnation)
        return self._past.get(incarnation, False) if peer is None else peer.struck

    def is_dead(self, incarnation: str, now: float) -> bool:
        """Whether this incarnation is taken for dead: replaced by a later one, left, or out of its lease.

        One that was never heard of may be alive: it may just have joined, or begun anew.
        """
        peer = self._present(incarnation)
        return incarnation in self._past if peer is None else peer.gone or now >= peer.until

    def _present(self, incarnation: str) -> Peer | None:
        peer = self._by_node.get(node_of(incarnation))
        return peer if peer is not None and peer.incarnation == incarnation else None

    def _bury(self, incarnation: str, *, over: bool) -> bool:
        news = incarnation not in self._past
        self._past[incarnation] = over or self._past.get(incarnation, False)
        if len(self._past) > MAX_PEERS:
            self._past.popitem(last=False)
        return news

    def believes(self, incarnation: str, now: float) -> bool:
        """Whether this incarnation holds a lease, as far as is known."""
        peer = self._present(incarnation)
        return peer is not None and not peer.gone and now < peer.until

    def get(self, node: str) -> Peer | None:
        """What is known of the node with this id."""
        return self._by_node.get(node)

    def alive(self, now: float) -> Iterator[Peer]:
        """Those that hold a lease, as far as is known."""
        return (peer for peer in self._by_node.values() if not peer.gone and now < peer.until)

    def roomiest(self, now: float, *, besides: frozenset[str] = frozenset()) -> Peer | None:
        """Where a session goes that cannot stay here: of those that take any, the one with the most room."""
        takers = [
            peer
            for peer in self.alive(now)
            if not peer.news.draining and peer.room > 0 and peer.incarnation not in besides
        ]
        return max(takers, key=lambda peer: (peer.room, peer.incarnation), default=None)

    def assign(self, peer: Peer) -> None:
        """A session is sent to `peer`."""
        peer.assigned += 1

    def forget_dead(self, now: float, *, after: float) -> list[str]:
        """Drop nodes whose lease has been over for `after` seconds; the incarnations that went."""
        dead = [peer.incarnation for peer in self._by_node.values() if now >= peer.until + after]
        for incarnation in dead:
            del self._by_node[node_of(incarnation)]
        return dead

    def newly_dead(self, now: float) -> list[str]:
        """Incarnations whose lease has run out since this was last asked; each is told once."""
        dead: list[str] = []
        for peer in self._by_node.values():
            if not peer.gone and now >= peer.until:
                peer.gone = True
                dead.append(peer.incarnation)
        return dead

    def __len__(self) -> int:
        return len(self._by_node)

    def snapshot(self) -> list[Peer]:
        """Copies of all that is known, by node id."""
        return [replace(self._by_node[node]) for node in sorted(self._by_node)]
