"""`Ownership`: what one node owns, for how long it may act on it, and where it believes everything else to be.

Sans-I/O: no clock, no socket, no await. Time comes in as `now` (seconds of the node's own monotonic clock), what is to
be done goes out as return values. `Journey` leads each request through it; `ClusterRouter` binds both to NATS and the
registry, the simulator under tests/ to seeded faults.

Nothing in here decides who may *write*: that is the store, by its epochs (one-writer). What is decided is who should
*act*, so that in the absence of faults nobody is ever refused by the store, and with them nobody acts for long.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ...stores import Address
from .entry import Entry, node_of
from .peers import NodeNews, Peers

__all__ = ["Held", "Ownership"]

MAX_HINTS: Final = 100_000
OWN_SHARE: Final = 0.9
"""Of a lease, for its holder: it stops a little before the others stop believing in it, as clocks differ in pace."""
MISSED: Final = 0.6
"""Of a lease, between two acknowledged renewals: so much more than their usual pace that this node was out of touch."""


@dataclass(slots=True)
class Held:
    """An address that the directory gives to this node."""

    epoch: int
    """That the store has given to this incarnation; while not `claimed`, the one that it should give."""
    revision: int
    """Of the directory's entry; 0 while the entry is still to be written."""
    claimed: bool = False


class Ownership:
    """One node's view. Single-threaded; none of it waits.

    A node *holds* an address when the directory gives it to this incarnation: from then on it may bring the actor to
    life. It may run turns only while it has its *lease*. When the lease runs out everything held is let go of, and the
    node comes back as another incarnation: what the directory still says of the old one then means nobody.

    What is let go of is never taken up again under the revision that it was held by: an answer that comes late, or a
    write of its end that lands late, finds the entry changed.
    """

    def __init__(self, me: str, *, lease: float, max_hints: int = MAX_HINTS) -> None:
        """`me`: this node's incarnation. `lease`: seconds."""
        self.me = me
        self.lease = lease
        self.peers = Peers()
        self.draining = False
        self._until = float("-inf")
        self._lapsed = True
        self._max_hints = max_hints
        self._held: dict[Address, Held] = {}
        self._hints: OrderedDict[Address, Entry] = OrderedDict()
        self._let_go = 0
        """The highest revision of all that was let go of: an older entry is held only after a new compare-and-set."""
        self._sent = float("-inf")
        self._settled = float("-inf")
        """From when on silence of the others proves anything."""
        self._moving: set[Address] = set()
        self._releasing: set[Address] = set()
        self.lapses = 0

    # The lease

    def may_run(self, now: float) -> bool:
        """Whether turns may start now."""
        return now < self._until and not self._lapsed

    def lease_left(self, now: float) -> float:
        """Seconds that turns may still start for; 0 or less: none."""
        return 0.0 if self._lapsed else self._until - now

    def renewed(self, sent: float) -> None:
        """A renewal of this incarnation, which left at `sent`, has been acknowledged.

        Counted from when it left: nobody may believe in this node for less long than it does itself.
        """
        if self._lapsed:
            return
        if sent - self._sent > self.lease * MISSED:
            self.reconnected(sent)
        self._sent = max(self._sent, sent)
        self._until = max(self._until, sent + self.lease * OWN_SHARE)

    def lapse(self, now: float) -> list[Address] | None:
        """Let go of everything if the lease is over; what was held, or None if it is not, or has been let go of.

        Every actor in memory must leave then, and the node needs a new incarnation (`begin`): another node may own any
        of it by now, and would not be noticed by a turn that only reads.
        """
        return None if now < self._until else self.struck()

    def struck(self) -> list[Address] | None:
        """Another node has struck this one's lease from NATS; what was held, or None if all has been let go of already.

        As `lapse`, but at once: that node is taking what this one held.
        """
        if self._lapsed:
            return None
        self.lapses += 1
        return self.resign()

    def resign(self) -> list[Address]:
        """This node leaves: it holds nothing from now on, and takes nothing. What was held."""
        held = list(self._held)
        self._lapsed = True
        self._until = float("-inf")
        self._held.clear()
        self._moving.clear()
        return held

    def begin(self, incarnation: str, sent: float) -> None:
        """Be `incarnation` from now on, by a first lease that left at `sent` and has been acknowledged."""
        self.me = incarnation
        self._lapsed = False
        self._sent = sent
        self._until = sent + self.lease * OWN_SHARE
        if self.lapses:
            self.reconnected(sent)

    def reconnected(self, now: float) -> None:
        """This node was out of touch: for the time of a lease the silence of others proves nothing.

        It may not have heard their renewals, and they may be as slow to come back as it was.
        """
        self._settled = max(self._settled, now + self.lease)
        self.peers.forgive(now + self.lease)

    def trusts_silence(self, now: float) -> bool:
        """Whether a node that is not heard of, or found, may be taken for dead."""
        return now >= self._settled

    # What is held

    def holds(self, address: Address) -> bool:
        """Whether this node may bring the actor at `address` to life."""
        return address in self._held

    def held(self, address: Address) -> Held | None:
        """What is held of `address`."""
        return self._held.get(address)

    @property
    def addresses(self) -> list[Address]:
        """All that is held."""
        return list(self._held)

    def opened(self, address: Address) -> Entry | None:
        """A new actor has been saved here for the first time; the entry to create, None if the lease is over."""
        if self._lapsed:
            return None
        self._held[address] = Held(1, 0, claimed=True)
        return Entry(self.me, 1, 0)

    def taken(self, address: Address, entry: Entry) -> bool:
        """The directory has accepted `entry`; False if it does not concern this incarnation, or was let go of since."""
        self._hints.pop(address, None)
        return self.adopts(address, entry)

    def claimed(self, address: Address, epoch: int) -> Entry | None:
        """The store has given this node `epoch`; the entry that must be written before the first turn, if any.

        Any other epoch than the expected one may mean that another node has taken the address, and claimed it. If the
        entry has changed, or cannot be written, the actor must leave as one that is `lost`: else changes would be
        acknowledged here while the other node, fenced without knowing it, goes on to answer reads from memory.
        """
        held = self._held.get(address)
        if held is None:
            return None
        expected = held.epoch + 1 if held.claimed else held.epoch
        held.epoch, held.claimed = epoch, True
        return Entry(self.me, epoch, held.revision) if epoch != expected else None

    def published(self, address: Address, revision: int, incarnation: str) -> bool:
        """A write of this node's own entry landed as `revision`; False if it is of no use now and must be undone."""
        held = self._held.get(address)
        if held is None or incarnation != self.me:
            self._let_go = max(self._let_go, revision)
            return False
        held.revision = max(held.revision, revision)
        return True

    def lost(self, address: Address) -> None:
        """The store has refused a save, or the record is gone: the address is somebody else's, or nobody's."""
        self._drop(address)

    def release(self, address: Address) -> Entry | None:
        """The actor sleeps: the entry that says so, to be written under its `revision`; None if there is none."""
        held = self._drop(address)
        if held is None or not held.revision:
            return None
        self._releasing.add(address)
        return Entry("", self.last_claimed(held), held.revision)

    def released(self, address: Address) -> None:
        """The write that `release` asked for is over. Only counted: it may still land, see `adopts`."""
        self._releasing.discard(address)

    def _drop(self, address: Address) -> Held | None:
        held = self._held.pop(address, None)
        self._moving.discard(address)
        if held is not None:
            self._let_go = max(self._let_go, held.revision)
        return held

    def hand_off(self, address: Address) -> bool:
        """Begin to move `address` to another node; False if it is not held here, or moves already."""
        if address not in self._held or address in self._moving:
            return False
        self._moving.add(address)
        return True

    def handing_off(self, address: Address) -> bool:
        """Whether it moves: nothing new of it may begin here."""
        return address in self._moving

    def stays(self, address: Address) -> None:
        """Its move was given up: what is held is this node's as before."""
        self._moving.discard(address)

    def handed_off(self, address: Address, to: str) -> Entry | None:
        """The actor has left memory; the entry that gives it to `to` (or to nobody: empty), None if there is none."""
        held = self._drop(address)
        if held is None or not held.revision:
            return None
        claimed = self.last_claimed(held)
        return Entry(to, claimed + 1 if to else claimed, held.revision)

    @staticmethod
    def last_claimed(held: Held) -> int:
        """The store's epoch as far as is known; one that was only foretold has not been claimed."""
        return held.epoch if held.claimed else held.epoch - 1

    # What the directory says

    def adopts(self, address: Address, entry: Entry) -> bool:
        """Whether an entry that names this incarnation settles that the address is held.

        Not if it is as old as something let go of: the write that ends it may still be on its way.
        """
        if self._lapsed or entry.incarnation != self.me:
            return False
        held = self._held.get(address)
        if held is not None:
            held.revision = max(held.revision, entry.revision)
            return True
        if entry.revision <= self._let_go:
            return False
        self._held[address] = Held(entry.epoch, entry.revision)
        return True

    # Where the others are

    def hint(self, address: Address) -> Entry | None:
        """Where `address` was last found, if that was elsewhere."""
        entry = self._hints.get(address)
        if entry is not None:
            self._hints.move_to_end(address)
        return entry

    def learn(self, address: Address, entry: Entry) -> None:
        """`address` was found elsewhere. What is older than what is known is not learnt (late answers)."""
        known = self._hints.get(address)
        if known is entry:
            return
        if known is not None and (known.epoch, known.revision) > (entry.epoch, entry.revision):
            return
        self._hints[address] = entry
        if len(self._hints) > self._max_hints:
            self._hints.popitem(last=False)

    def unlearn(self, address: Address) -> None:
        """The hint was wrong."""
        self._hints.pop(address, None)

    def heard(self, news: NodeNews, now: float) -> str | None:
        """A node renews its lease; the incarnation that this one replaces, which must be dead."""
        return None if self.is_mine(news.incarnation) else self.peers.heard(news, now)

    def is_dead(self, incarnation: str, now: float) -> bool:
        """Whether nobody seems to act as `incarnation`: an earlier one of this node, or a peer taken for dead."""
        if incarnation == self.me:
            return self._lapsed
        return self.is_mine(incarnation) or self.peers.is_dead(incarnation, now)

    def is_mine(self, incarnation: str) -> bool:
        """Whether it is this node, now or at an earlier start."""
        return node_of(incarnation) == node_of(self.me)

    def must_strike(self, incarnation: str) -> bool:
        """Whether it might live, and act on what is taken from it until its lease is struck."""
        return bool(incarnation) and not self.is_mine(incarnation) and not self.peers.is_over(incarnation)

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "held": len(self._held),
            "hints": len(self._hints),
            "releasing": len(self._releasing),
            "moving": len(self._moving),
            "lapses": self.lapses,
        }
