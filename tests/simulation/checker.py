"""`Checker`: what must be true of every schedule. A violation names the invariant of DESIGN.md that it breaks."""

from __future__ import annotations

from collections.abc import Iterable

from understudy.runtime.cluster.journey import PATIENCE
from understudy.stores import Address

from .calls import NOT_RUN, Call, Status
from .storage import Storage
from .world import World

__all__ = ["Checker", "Violation"]

LONGEST = 45.0
"""Seconds in which every call must end: a journey's patience, the link's deadline, the turns and saves before it."""


class Violation(AssertionError):
    """A schedule in which the machine broke a promise."""


class Checker:
    """Watches one schedule."""

    def __init__(self, world: World, storage: Storage, lease: float) -> None:
        self._world = world
        self._storage = storage
        self._lease = lease
        self.faulty = True
        self.lossy = False
        """The directory loses what it has acknowledged: then a hint may be wrong for as long as nobody writes."""
        self.calls: dict[str, Call] = {}
        self._moves: dict[Address, list[float]] = {}
        self.limited = False
        """There may not be room for all sessions."""
        self.brisk = False
        """All turns are short, so that what takes long is due to the fault."""

    def fail(self, invariant: str, what: str) -> None:
        self._world.note("VIOLATION", "%s: %s", invariant, what)
        raise Violation(f"{invariant}: {what}")

    # While it runs

    def begin(self, call: Call) -> None:
        self.calls[call.id] = call
        self._world.note("client", "%s", call)

    def turn(self, call: Call, incarnation: str) -> None:
        call.turns += 1
        call.incarnation = incarnation
        call.owners.add(incarnation)
        self._world.note("turn", "%s by %s", call, incarnation)
        if call.turns > 1 and not call.repeatable:
            self.fail("never-run-twice", f"{call} has begun {call.turns} turns")
        if call.status in NOT_RUN:
            self.fail("never-run-twice", f"{call} runs after its client was told that it had not ({call.status})")

    def end(self, call: Call, status: str, log: tuple[str, ...] = ()) -> None:
        if call.status:
            self.fail("no-silent-loss", f"{call} ends twice: {call.status}, then {status}")
        call.status = status
        call.ended = self._world.now
        call.result = log
        self._world.note("client", "%s: %s (%d in the log)", call, status, len(log))
        if status in NOT_RUN and call.turns and call.kind != "read":
            self.fail("never-run-twice", f"{call} has run, and its client is told that it has not ({status})")

    def moved(self, address: Address) -> None:
        """An owner has let go of it in order."""
        self._moves.setdefault(address, []).append(self._world.now)

    # At the end

    def check(self) -> None:
        for call in self.calls.values():
            if not call.status:
                self.fail("no-silent-loss", f"{call} has no outcome after {self._world.now - call.started:.1f} s")
            if call.ended - call.started > LONGEST:
                self.fail("no-silent-loss", f"{call} took {call.ended - call.started:.1f} s to end")
        by_address: dict[Address, list[Call]] = {}
        for call in self.calls.values():
            by_address.setdefault(call.address, []).append(call)
        for address, calls in by_address.items():
            self._check_writes(address, calls)
            self._check_reads(calls)
        if not self.faulty:
            self._check_fair(self.calls.values())

    def _check_writes(self, address: Address, calls: list[Call]) -> None:
        log = self._storage.log_of(address)
        adds = [id for id in log if id.startswith("add")]
        if len(set(adds)) != len(adds):
            self.fail("one-writer", f"a change is stored twice in {address.id}: {log}")
        results: dict[int, Call] = {}
        for call in calls:
            if call.kind not in ("add", "set"):
                continue
            if call.status == Status.OK:
                if call.id not in log:
                    self.fail("one-writer", f"{call} was acknowledged and is lost")
                if log[: len(call.result)] != call.result:
                    self.fail("one-writer", f"{call} was acknowledged as {call.result}, stored is {log}")
                if call.kind == "add":
                    other = results.setdefault(len(call.result), call)
                    if other is not call:
                        self.fail("one-writer", f"{call} and {other} were both answered {len(call.result)}")
                continue
            denied = call.status in NOT_RUN or (call.status == Status.NOT_SAVED and call.kind == "add")
            if denied and call.id in log:
                self.fail("one-writer", f"{call} is stored, and its client was told {call.status!r}")

    def _check_reads(self, calls: list[Call]) -> None:
        changes = [call for call in calls if call.kind in ("add", "set") and call.status == Status.OK]
        lease = 0.0 if not self.faulty else self._lease
        for read in calls:
            if read.kind != "read" or read.status != Status.OK:
                continue
            for change in changes:
                if change.ended >= read.started or change.id in read.result:
                    continue
                age = read.started - change.ended
                if change.incarnation == read.incarnation and len(change.owners) == len(read.owners) == 1:
                    self.fail("bounded staleness", f"{read} misses {change} of the same owner, {age:.2f} s old")
                if age > lease and not self.lossy:
                    self.fail("bounded staleness", f"{read} misses {change}, acknowledged {age:.2f} s before")

    def check_patience(self) -> None:
        """Nothing has worked for long, and nothing does yet: who has asked long ago has been told so."""
        for call in self.calls.values():
            if not call.status and self._world.now - call.started > PATIENCE + 4.0:
                self.fail("no-silent-loss", f"{call} waits since {self._world.now - call.started:.1f} s")

    def check_one_fault(self, kind: str, hit: str, at: float) -> None:
        """One node has died, or hangs, and nothing else is wrong: what that may cost others is bounded."""
        most = self._lease + 1.0 if kind == "one stop" else 1.0
        for call in self.calls.values():
            if call.node == hit or call.started < at or call.kind == "stray":
                continue
            if call.ended - call.started > most + 2.0 * (call.kind != "read"):
                self.fail("fail-over", f"{call} took {call.ended - call.started:.2f} s after {hit} was lost")
            if call.status not in (Status.OK, Status.IN_DOUBT, Status.NOT_SAVED):
                self.fail("fail-over", f"{call} ended as {call.status!r} after {hit} was lost")
            if call.status != Status.OK and kind == "one crash":
                self.fail("fail-over", f"{call} ended as {call.status!r} though it came after {hit} had died")

    def _check_fair(self, calls: Iterable[Call]) -> None:
        """Without faults nothing may go wrong at all."""
        known: dict[tuple[str, Address], tuple[float, Call]] = {}
        """Of the last call for an address at a node: since when the node's hint may be as it is, and the call."""
        for call in sorted(calls, key=lambda call: call.started):
            expected = Status.NO_SESSION if call.kind == "stray" else Status.OK
            if call.status != expected and not (self.limited and call.status == Status.BUSY):
                self.fail("any-node", f"{call} ended as {call.status!r} though there was no fault")
            moves = self._moves.get(call.address, ())
            since, before = known.get((call.node, call.address), (0.0, call))
            if before.ended < call.started:
                since = before.started
            if call.corrections > sum(since <= moved <= call.ended for moved in moves):
                self.fail("any-node", f"{call} needed {call.corrections} corrected hops, more than there were moves")
            known[call.node, call.address] = since, call
        if self._storage.stale:
            self.fail("one-writer", f"the store had to refuse {self._storage.stale} saves though there was no fault")
