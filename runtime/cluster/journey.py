"""`Journey`: one request's way to the actor it is for. Sans-I/O, as `Ownership` is.

`begin` gives the first step, `advance` the next one for what came of the last, until `None` (answered) or a `Refuse`.
The driver does what a step says and nothing else; the one thing it must never do is to run or forward a request that
no step told it to.
"""

from __future__ import annotations

from typing import Final

from ...stores import Address
from .entry import Entry
from .ownership import Ownership
from .steps import (
    Answered,
    Denial,
    Event,
    Forward,
    Found,
    Load,
    Loaded,
    LookUp,
    NoRoomHere,
    NotRunHere,
    NotRunThere,
    PathBroken,
    Pause,
    Refuse,
    Run,
    Step,
    Taken,
    TakenAway,
    Unreachable,
    Write,
)

__all__ = ["Journey"]

PATIENCE: Final = 10.0
"""Seconds that a request may look for its actor before it is refused. Longer than a lease: a hung owner costs one."""
AT_ONCE: Final = 2
"""Times that a request which did not find its actor looks again without a pause."""
AFTER_HAND_OFF: Final = 5.0
"""Seconds that there are left at least once a hand-off is over."""
SHORTEST_PAUSE: Final = 0.005
LONGEST_PAUSE: Final = 0.25


class Journey:
    """One request for one address.

    `remote`: it was forwarded to this node, which must not forward it again but say whose it is: a request is never
    passed on by two nodes that both believe the other to be the owner.
    """

    __slots__ = (
        "_deadline",
        "_entry",
        "_full",
        "_looks",
        "_ownership",
        "_patience",
        "_pauses",
        "_write",
        "address",
        "corrections",
        "forwards",
        "maybe_ran",
        "remote",
    )

    def __init__(
        self, ownership: Ownership, address: Address, now: float, *, remote: bool = False, patience: float = PATIENCE
    ) -> None:
        self.address = address
        self.remote = remote
        self.corrections = 0
        """Hops that went to a node which was not the owner."""
        self.forwards = 0
        self.maybe_ran = False
        """An earlier try may have run, at a node that is gone. No answer may then say that it has not."""
        self._ownership = ownership
        self._patience = patience
        self._deadline = now + patience
        self._pauses = 0
        self._looks = 0
        self._entry: Entry | None = None
        """By which it was forwarded: what the directory, or a hint, said last."""
        self._write: Write | None = None
        self._full: dict[str, int] = {}
        """Incarnations that said that they have no room, and the revision up to which they let go of the address."""

    def begin(self, now: float) -> Step:
        """The first step."""
        return self._set_out(now)

    def advance(self, event: Event, now: float) -> Step | None:
        """The next step after `event`; None when the request has been answered."""
        match event:
            case Answered():
                return None
            case NotRunHere():
                # It left while the request waited: to another node, or because the lease is over.
                return self._look_again(now)
            case NoRoomHere():
                return self._give_away(now)
            case Found(entry):
                return self._found(entry, now)
            case Loaded(owner, epoch):
                return self._loaded(owner, epoch, now)
            case Taken(revision):
                return self._taken(revision, now)
            case TakenAway():
                return LookUp() if now < self._deadline else self._refuse(Denial.UNAVAILABLE)
            case Unreachable():
                return self._pause(now)
            case NotRunThere(entry, full):
                return self._not_run_there(entry, full, now)
            case PathBroken():
                return self._path_broken(event, now)

    def resume(self, now: float) -> Step:
        """The next step after a `Pause`."""
        return self._set_out(now)

    def renew(self, now: float) -> None:
        """It had found its actor, whose stream has broken off after a while: the search begins anew, with all its time.

        What was learnt of the nodes, and whether the request may have run, is not forgotten.
        """
        self._deadline = now + self._patience
        self._pauses = self._looks = 0

    def proves_death(self, broken: PathBroken, now: float) -> bool:
        """Whether the node at the end of this path is gone; otherwise it may be well."""
        return broken.dead and self._ownership.trusts_silence(now)

    # Where to

    def _set_out(self, now: float) -> Step:
        """From what is known without asking anybody."""
        ownership = self._ownership
        address = self.address
        if ownership.handing_off(address):
            # The turn that it waits for may take its time, and then the new owner must be found.
            self._deadline = max(self._deadline, now + AFTER_HAND_OFF)
            return self._pause(now)
        if ownership.holds(address):
            return Run() if ownership.may_run(now) else self._wait_for_lease(now)
        if self.remote:
            return LookUp() if ownership.may_run(now) else self._refuse(Denial.ELSEWHERE)
        hint = ownership.hint(address)
        if hint is None:
            return LookUp()
        return self._go_to(hint, now)

    def _found(self, entry: Entry | None, now: float) -> Step:
        ownership = self._ownership
        if entry is None:
            return Load()
        if ownership.adopts(self.address, entry):
            return self._set_out(now)
        if entry.asleep or ownership.is_mine(entry.incarnation) or self._is_let_go(entry):
            return self._take(entry, now)
        return self._go_to(entry, now)

    def _loaded(self, owner: str | None, epoch: int, now: float) -> Step:
        """The directory knows nothing. The record does: whoever wrote it last may have it still."""
        if owner is None:
            return self._refuse(Denial.UNKNOWN)
        entry = Entry(owner, epoch, 0)
        if entry.asleep or self._ownership.is_mine(owner) or self._is_let_go(entry):
            return self._take(Entry("", epoch, 0), now)
        return self._go_to(entry, now)

    def _is_let_go(self, entry: Entry) -> bool:
        """Whether who holds it by this entry has said that it does not any more; by a later one it may again."""
        return entry.revision <= self._full.get(entry.incarnation, -1)

    def _go_to(self, entry: Entry, now: float) -> Step:
        """To the node that `entry` names, unless it is taken for dead."""
        ownership = self._ownership
        if ownership.is_dead(entry.incarnation, now) and (
            ownership.trusts_silence(now) or not ownership.must_strike(entry.incarnation)
        ):
            return self._take(entry, now)
        if self.remote:
            return self._refuse(Denial.ELSEWHERE, entry)
        ownership.learn(self.address, entry)
        self._entry = entry
        self.forwards += 1
        return Forward(entry.incarnation)

    def _take(self, present: Entry, now: float) -> Step:
        """Have the directory give the address to this node, unless it has changed since `present` was read."""
        ownership = self._ownership
        if not ownership.may_run(now):
            return self._wait_for_lease(now)
        if ownership.draining:
            return self._give_to_roomiest(present, now)
        return self._assign(ownership.me, present)

    def _assign(self, incarnation: str, present: Entry) -> Step:
        """Write that the address is `incarnation`'s.

        The claim that follows raises the record's epoch by one; an entry of a node that only began to claim may be
        ahead of it, which is put right when the claim tells.
        """
        holder = present.incarnation
        struck = holder if not self._is_let_go(present) and self._ownership.must_strike(holder) else ""
        self._write = Write(Entry(incarnation, present.epoch + 1, present.revision), struck)
        return self._write

    def _taken(self, revision: int, now: float) -> Step:
        assert self._write is not None, "Taken answers a Write"
        ownership = self._ownership
        written = self._write.entry
        if self._write.striking:
            ownership.peers.strike(self._write.striking)
        entry = Entry(written.incarnation, written.epoch, revision)
        if not ownership.is_mine(entry.incarnation):
            return self._go_to(entry, now)
        return self._set_out(now) if ownership.taken(self.address, entry) else self._look_again(now)

    # When it does not go straight

    def _look_again(self, now: float) -> Step:
        if self.remote and not self._ownership.may_run(now):
            return self._refuse(Denial.ELSEWHERE)
        self._looks += 1
        return LookUp() if self._looks <= AT_ONCE and now < self._deadline else self._pause(now)

    def _not_run_there(self, entry: Entry | None, full: bool, now: float) -> Step:
        ownership = self._ownership
        there, self._entry = self._entry, None
        assert there is not None, "NotRunThere answers a Forward"
        ownership.unlearn(self.address)
        if full:
            let_go = entry.revision if entry is not None and entry.incarnation == there.incarnation else 0
            self._full[there.incarnation] = max(let_go, self._full.get(there.incarnation, 0))
        self.corrections += 1
        if entry is not None and entry.incarnation != there.incarnation and not ownership.is_mine(entry.incarnation):
            ownership.learn(self.address, entry)
            if self.corrections <= AT_ONCE and not ownership.is_dead(entry.incarnation, now):
                return self._go_to(entry, now)
        return self._look_again(now)

    def _path_broken(self, broken: PathBroken, now: float) -> Step:
        ownership = self._ownership
        there, self._entry = self._entry, None
        assert there is not None, "PathBroken answers a Forward"
        ownership.unlearn(self.address)
        proof = self.proves_death(broken, now)
        if proof:
            ownership.peers.left(there.incarnation)
        if broken.in_doubt:
            return Refuse(Denial.IN_DOUBT)
        self.maybe_ran |= broken.maybe_ran
        if proof and now < self._deadline:
            # A forward that finds nobody is proof enough to try: the epoch, not a timeout, keeps it safe.
            return self._take(there, now)
        return self._pause(now)

    def _give_away(self, now: float) -> Step:
        """This node has no room for it: find one that has."""
        ownership = self._ownership
        held = ownership.held(self.address)
        if self.remote:
            # Whoever forwarded it may give it to another node then.
            ownership.lost(self.address)
            return self._refuse(Denial.BUSY, Entry(ownership.me, held.epoch, held.revision) if held else None)
        if held is None or not held.revision:
            ownership.lost(self.address)
            return self._look_again(now)
        return self._give_to_roomiest(Entry(ownership.me, ownership.last_claimed(held), held.revision), now)

    def _give_to_roomiest(self, present: Entry, now: float) -> Step:
        ownership = self._ownership
        if self.remote:
            return self._refuse(Denial.BUSY, present if present.incarnation == ownership.me else None)
        peer = ownership.peers.roomiest(now, besides=frozenset(self._full))
        if peer is None:
            return self._refuse(Denial.BUSY)
        ownership.lost(self.address)
        ownership.peers.assign(peer)
        return self._assign(peer.incarnation, present)

    def _wait_for_lease(self, now: float) -> Step:
        return self._refuse(Denial.ELSEWHERE) if self.remote else self._pause(now)

    def _pause(self, now: float) -> Step:
        if now >= self._deadline:
            return self._refuse(Denial.UNAVAILABLE)
        seconds = min(SHORTEST_PAUSE * 2**self._pauses, LONGEST_PAUSE)
        self._pauses += 1
        return Pause(seconds)

    def _refuse(self, denial: Denial, entry: Entry | None = None) -> Refuse:
        """Not run, as far as this journey goes; but an earlier try of it may have."""
        return Refuse(Denial.IN_DOUBT) if self.maybe_ran else Refuse(denial, entry)
