"""What could be wrong with the machine: each mutation takes one thought out of it, and the simulator must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.journey import Journey
from understudy.runtime.cluster.ownership import Held, Ownership
from understudy.runtime.cluster.peers import Peers
from understudy.runtime.cluster.steps import Denial, Forward, LookUp, PathBroken, Refuse, Run, Write
from understudy.stores import MemoryStore

from .schedule import THEMES

__all__ = ["MUTATIONS", "Mutation"]

Patch = Callable[[Any, str, Any], None]
"""As `pytest.MonkeyPatch.setattr`."""


class Mutation(NamedTuple):
    apply: Callable[[Patch], None]
    themes: tuple[str, ...]
    within: int = 400
    """Schedules in which it must be noticed."""

    def seeds(self) -> Iterator[int]:
        """Of schedules with its themes."""
        return (seed for seed in count(1) if THEMES[seed % len(THEMES)] in self.themes)


MUTATIONS: dict[str, Mutation] = {}


def mutation(name: str, *themes: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """`themes`: of the schedules that can show it; by default all."""

    def add(mutate: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTATIONS[name] = Mutation(mutate, themes or tuple(set(THEMES)))
        return mutate

    return add


# The fence


@mutation("the store does not look at the epoch of a save")
def _(patch: Patch) -> None:
    save = MemoryStore.save

    async def unfenced(
        self: MemoryStore, address: Any, *, epoch: int, version: int, snapshot: bytes, ttl: float
    ) -> None:
        entry = self._entries.get(address)
        if entry is not None:
            epoch, version = entry.epoch, entry.version + 1
        await save(self, address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)

    patch(MemoryStore, "save", unfenced)


@mutation("a claim does not raise the epoch")
def _(patch: Patch) -> None:
    claim = MemoryStore.claim

    async def shared(self: MemoryStore, address: Any, *, owner: str) -> Any:
        record = await claim(self, address, owner=owner)
        self._entries[address].epoch -= 1
        return replace(record, epoch=record.epoch - 1)

    patch(MemoryStore, "claim", shared)


@mutation("an unexpected epoch is taken as it comes", "cuts")
def _(patch: Patch) -> None:
    claimed = Ownership.claimed

    def trusting(self: Ownership, address: Any, epoch: int) -> None:
        claimed(self, address, epoch)

    patch(Ownership, "claimed", trusting)


# The lease


@mutation("the lease clock is forgotten", "cuts", "stops")
def _(patch: Patch) -> None:
    patch(Ownership, "may_run", lambda self, now: not self._lapsed)
    patch(Ownership, "lapse", lambda self, now: None)


@mutation("turns start until the tick has noticed the end of the lease", "stops")
def _(patch: Patch) -> None:
    patch(Ownership, "may_run", lambda self, now: not self._lapsed)


@mutation("the lease is counted from the acknowledgement, and for longer than the others count", "cuts", "stops")
def _(patch: Patch) -> None:
    renewed = Ownership.renewed

    def generous(self: Ownership, sent: float) -> None:
        renewed(self, sent)
        if not self._lapsed:
            self._until = sent + 2 * self.lease

    patch(Ownership, "renewed", generous)


@mutation("a renewal brings back a lease that was struck", "cuts")
def _(patch: Patch) -> None:
    patch(Ownership, "struck", lambda self: None)


@mutation("held addresses are kept after the lease", "stops", "cuts")
def _(patch: Patch) -> None:
    struck = Ownership.struck

    def keeping(self: Ownership) -> Any:
        held = dict(self._held)
        let_go = struck(self)
        self._held.update(held)
        return let_go

    patch(Ownership, "struck", keeping)


# Taking


@mutation("a lease is not struck before its sessions are taken", "cuts")
def _(patch: Patch) -> None:
    patch(Ownership, "must_strike", lambda self, incarnation: False)


@mutation("a peer whose lease is not over is taken for dead")
def _(patch: Patch) -> None:
    patch(Peers, "is_dead", lambda self, incarnation, now: True)


@mutation("a peer whose lease is over is believed in")
def _(patch: Patch) -> None:
    is_dead = Peers.is_dead
    patch(Peers, "newly_dead", lambda self, now: [])
    patch(Peers, "is_dead", lambda self, incarnation, now: is_dead(self, incarnation, float("-inf")))


@mutation("the address is taken whatever the entry's revision is")
def _(patch: Patch) -> None:
    from .nats import Nats

    write = Nats.write

    def overwrite(self: Nats, who: str, address: Any, entry: Entry) -> int | str:
        present = self.entries.get(address)
        return write(self, who, address, replace(entry, revision=present.revision if present else 0))

    patch(Nats, "write", overwrite)


@mutation("it runs without having been given the address")
def _(patch: Patch) -> None:
    take = Journey._take

    def at_once(self: Journey, present: Entry, now: float) -> Any:
        step = take(self, present, now)
        if isinstance(step, Write) and step.entry.incarnation == self._ownership.me:
            self._ownership._held[self.address] = Held(step.entry.epoch, 0)
            return Run()
        return step

    patch(Journey, "_take", at_once)


@mutation("what was let go of is adopted again under its old revision", "no room")
def _(patch: Patch) -> None:
    def forgetful(self: Ownership, address: Any, entry: Entry) -> bool:
        if self._lapsed or entry.incarnation != self.me:
            return False
        self._held.setdefault(address, Held(entry.epoch, entry.revision))
        return True

    patch(Ownership, "adopts", forgetful)


# Forwarding


@mutation("a call that must not be repeated is")
def _(patch: Patch) -> None:
    broken = Journey._path_broken
    patch(Journey, "_path_broken", lambda self, event, now: broken(self, replace(event, repeatable=True), now))


@mutation("a call that may have run is said not to have", "blackout", "cuts")
def _(patch: Patch) -> None:
    patch(Journey, "_refuse", lambda self, denial, entry=None: Refuse(denial, entry))


@mutation("a call is in doubt though nobody was there to get it")
def _(patch: Patch) -> None:
    broken = Journey._path_broken

    def timid(self: Journey, event: PathBroken, now: float) -> Any:
        return broken(self, event, now) if event.maybe_ran or event.repeatable else Refuse(Denial.IN_DOUBT)

    patch(Journey, "_path_broken", timid)


@mutation("a forwarded call is forwarded again")
def _(patch: Patch) -> None:
    go_to = Journey._go_to

    def onward(self: Journey, entry: Entry, now: float) -> Any:
        step = go_to(self, entry, now)
        if self.remote and isinstance(step, Refuse) and step.entry is not None:
            self._entry = entry
            return Forward(entry.incarnation)
        return step

    patch(Journey, "_go_to", onward)


@mutation("a wrong hint is kept")
def _(patch: Patch) -> None:
    patch(Ownership, "unlearn", lambda self, address: None)
    patch(Ownership, "learn", lambda self, address, entry: self._hints.setdefault(address, entry))


@mutation("a node does not tell whose the session is")
def _(patch: Patch) -> None:
    refuse = Journey._refuse
    patch(Journey, "_refuse", lambda self, denial, entry=None: refuse(self, denial))
    patch(Journey, "_not_run_there", lambda self, entry, full, now: self._pause(now))


@mutation("a journey has no end", "blackout")
def _(patch: Patch) -> None:
    pause = Journey._pause
    patch(Journey, "_pause", lambda self, now: pause(self, min(now, self._deadline - 1)))


# Draining, rooms


@mutation("new calls run while the actor is handed off", "no fault")
def _(patch: Patch) -> None:
    patch(Ownership, "handing_off", lambda self, address: False)
    patch(Ownership, "hand_off", lambda self, address: address in self._held)


@mutation("a node without room keeps what it refuses to run", "no room")
def _(patch: Patch) -> None:
    give_away = Journey._give_away

    def keeping(self: Journey, now: float) -> Any:
        held = self._ownership.held(self.address)
        step = give_away(self, now)
        if self.remote and held is not None:
            self._ownership._held[self.address] = held
        return step

    patch(Journey, "_give_away", keeping)


@mutation("a node that was out of touch takes the others for dead")
def _(patch: Patch) -> None:
    patch(Ownership, "reconnected", lambda self, now: None)


@mutation("a request whose turn did not come is given up")
def _(patch: Patch) -> None:
    patch(Journey, "_look_again", lambda self, now: self._refuse(Denial.UNAVAILABLE))


@mutation("the directory is asked again and again without a pause", "any faults")
def _(patch: Patch) -> None:
    patch(Journey, "_look_again", lambda self, now: LookUp())


@mutation("that nobody is there is not taken for proof")
def _(patch: Patch) -> None:
    broken = Journey._path_broken
    patch(Journey, "_path_broken", lambda self, event, now: broken(self, replace(event, dead=False), now))
