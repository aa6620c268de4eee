"""A cluster that moves from one store to another, as a deterministic simulation: real pairs of stores over real
`MemoryStore`s, in which every call may be the last thing that a node does, or take effect later, or be answered late.

A seed names one schedule. `play(seed)` raises `Violation` where something was promised that did not hold:

* one-writer: two writers were never both acknowledged the same version; an epoch was never given out twice, nor one
  below another that was given out before.
* No acknowledged save is lost, and no session that was not ended.
* What was ended stays ended.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from understudy.stores import (
    Address,
    MemoryStore,
    Page,
    Record,
    RecordExists,
    RecordNotFound,
    StaleEpoch,
    StoreUnavailable,
)
from understudy.stores.moving import FollowingStore, MovingStore
from understudy.stores.moving.marks import is_placeholder, is_tombstone
from understudy.stores.testing import ManualTime

PHASES = (
    ("former", "former"),
    ("former", "follow"),
    ("follow", "follow"),
    ("follow", "move"),
    ("move", "move"),
    ("move", "next"),
    ("next", "next"),
)
"""What the two kinds of nodes are that run at a time."""

MIDST = (("follow", "follow"), ("follow", "move"), ("move", "next"))
"""The part of it that most can go wrong in."""

TTL = 1000.0


class Violation(AssertionError):
    """Something that was promised did not hold."""


class _Pause:
    """Where others may run."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@dataclass
class Late:
    """A call that a dead node has left on its way."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    store: MemoryStore


class Wire:
    """One node's way to one store. Others run before a call takes effect, and before it is answered."""

    def __init__(self, store: MemoryStore, world: World) -> None:
        self._store = store
        self._world = world
        self.shared = True
        self.under_way: list[Late] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in ("create", "adopt", "claim", "load", "save", "touch", "delete", "list"):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            world = self._world
            late = Late(name, args, options, self._store)
            self.under_way.append(late)
            await _Pause()
            self.under_way.remove(late)
            if world.chance(world.failing):
                raise StoreUnavailable("lost on its way there", outcome_unknown=True)
            answer = error = None
            try:
                answer = await method(*args, **options)
            except (RecordExists, RecordNotFound, StaleEpoch) as raised:
                error = raised
            # One that was sent twice by a client that repeats: the second may take effect much later. Not of what
            # creates: of a session that has ended since, any store would take it for a new one.
            if name in ("save", "touch", "delete") and world.chance(world.repeating):
                world.late.append(late)
            await _Pause()
            if world.chance(world.failing):
                raise StoreUnavailable("lost on its way back", outcome_unknown=True)
            if error is not None:
                raise error
            return answer

        return call

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        await self.__getattr__("adopt")(record, over=over)

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        return await self.__getattr__("list")(tenant=tenant, cursor=cursor, limit=limit)


@dataclass
class Told:
    """What was acknowledged of one session."""

    saved: dict[int, bytes] = field(default_factory=dict)
    """By version."""
    epochs: set[int] = field(default_factory=set)
    ending: bool = False
    """Somebody tried to end it; it may be gone."""
    ended: bool = False

    @property
    def newest(self) -> int:
        return max(self.saved, default=0)


Work = Coroutine[Any, Any, None]


class Process:
    """A node: what it is at, over stores of its own."""

    def __init__(self, world: World, mode: str) -> None:
        self.mode = mode
        self.works: list[Work] = []
        self.wires = (Wire(world.former, world), Wire(world.next, world))
        former, next = self.wires
        self.store: Any
        if mode == "follow":
            self.store = FollowingStore(former, next, clock=world.clock, max_known=world.max_known)  # pyright: ignore
        elif mode == "move":
            self.store = MovingStore(former, next, clock=world.clock)  # pyright: ignore
        elif mode == "back":
            self.store = MovingStore(next, former, clock=world.clock)  # pyright: ignore
        else:
            self.store = former if mode == "former" else next


class World:
    """One schedule."""

    def __init__(
        self, seed: int, *, sessions: int = 2, steps: int = 70, phases: Sequence[tuple[str, str]] = PHASES
    ) -> None:
        self.phases = phases
        self.random = Random(seed)
        self.clock = ManualTime()
        self.former = MemoryStore(self.clock)
        self.next = MemoryStore(self.clock)
        self.late: list[Late] = []
        self.told: dict[Address, Told] = {}
        self.works: list[Work] = []
        self.slow: set[Work] = set()
        self.steps = steps
        self.sessions = sessions
        self.serial = 0
        self.failing = self.random.choice((0.0, 0.02, 0.1))
        self.repeating = self.random.choice((0.0, 0.05, 0.3))
        self.crashing = self.random.choice((0.0, 0.02, 0.05))
        self.stalling = self.random.choice((0.0, 0.2, 0.5))
        self.max_known = self.random.choice((1, 1, 100))

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    # What nodes do

    async def open(self, process: Process) -> None:
        address = Address("session", f"{self.random.getrandbits(64):x}")
        first = self.mark()
        try:
            record = await process.store.create(address, tenant="t", owner="n", snapshot=first, ttl=TTL)
        except StoreUnavailable:
            return
        self.told[address] = told = Told()
        told.saved[1] = first
        told.epochs.add(record.epoch)

    async def use(self, process: Process, address: Address) -> None:
        told = self.told[address]
        ended, newest, epochs = told.ended, told.newest, set(told.epochs)
        try:
            record = await process.store.claim(address, owner="n")
        except RecordNotFound:
            if not told.ending:
                raise Violation(f"{address} was lost: {process.mode} does not find it") from None
            return
        if is_placeholder(record) and process.mode == "next":
            # What is left of a move that came to nothing. It is no session, and no state.
            if not told.ending:
                raise Violation(f"{address} is a mere placeholder to those with the next store alone")
            return
        if is_placeholder(record) or is_tombstone(record.snapshot):
            raise Violation(f"{process.mode} was given a mark for a session")
        if ended:
            raise Violation(f"{address} had ended, and {process.mode} has found it")
        if record.version < newest:
            raise Violation(f"{process.mode} was given version {record.version}, and {newest} was acknowledged")
        if told.saved.get(record.version, record.snapshot) != record.snapshot:
            raise Violation(f"version {record.version} is not what was acknowledged")
        if record.epoch in told.epochs or any(record.epoch <= epoch for epoch in epochs):
            raise Violation(f"epoch {record.epoch} was given out after {sorted(told.epochs)}")
        told.epochs.add(record.epoch)
        await self.hold(process, record, told)

    async def hold(self, process: Process, record: Record, told: Told) -> None:
        address, epoch, version = record.address, record.epoch, record.version
        for _ in range(self.random.randrange(3)):
            version += 1
            mark = self.mark()
            ended = told.ended
            try:
                await process.store.save(address, epoch=epoch, version=version, snapshot=mark, ttl=TTL)
            except StoreUnavailable:
                return
            except StaleEpoch as stale:
                if stale.held == stale.stored and not self.failing:
                    raise Violation(f"a save of {address} at {process.mode} was refused for nothing") from stale
                return
            except RecordNotFound:
                if not told.ending:
                    raise Violation(f"a save of {address} at {process.mode} found nothing") from None
                return
            if ended:
                raise Violation(f"a save of {address} was acknowledged after its end")
            if version in told.saved:
                raise Violation(f"two writers were acknowledged version {version}")
            told.saved[version] = mark
        what = self.random.random()
        if what < 0.15:
            told.ending = True
            if await process.store.delete(address, epoch=epoch):
                told.ended = True
        elif what < 0.3:
            await process.store.touch(address, epoch=epoch, ttl=TTL)

    async def end(self, process: Process, address: Address) -> None:
        told = self.told[address]
        told.ending = True
        await process.store.delete(address)
        told.ended = True

    async def peek(self, process: Process, address: Address) -> None:
        told = self.told[address]
        ended, newest = told.ended, told.newest
        record = await process.store.load(address)
        if record is None:
            if not told.ending:
                raise Violation(f"{address} was lost: {process.mode} cannot load it")
        elif ended and not is_placeholder(record):
            raise Violation(f"{address} had ended, and {process.mode} has loaded it")
        elif record.version < newest and not is_placeholder(record):
            raise Violation(f"{process.mode} has loaded version {record.version}, and {newest} was acknowledged")

    async def walk(self, process: Process) -> None:
        expected = {address for address, told in self.told.items() if not told.ending}
        found: set[Address] = set()
        cursor = None
        while True:
            page = await process.store.list(cursor=cursor, limit=2)
            found |= {info.address for info in page.records}
            cursor = page.cursor
            if cursor is None:
                break
        missing = {address for address in expected - found if not self.told[address].ending}
        if missing:
            raise Violation(f"{process.mode} does not list {missing}")

    async def bring(self, process: Process, address: Address) -> None:
        await process.store.bring(address)

    def mark(self) -> bytes:
        self.serial += 1
        return b"%d" % self.serial

    # Playing

    def begin(self, node: Process) -> Work:
        work = self.work(node)
        # Up to the first call, so that there is nothing that was never begun.
        work.send(None)
        self.works.append(work)
        if self.chance(self.stalling):
            self.slow.add(work)
        return work

    def work(self, process: Process) -> Work:
        what = self.random.random()
        if len(self.told) < self.sessions or what < 0.05:
            return self.open(process)
        address = self.random.choice(list(self.told))
        if what < 0.1:
            return self.end(process, address)
        if what < 0.2:
            return self.peek(process, address)
        if what < 0.25:
            return self.walk(process)
        if what < 0.5 and process.mode == "move":
            return self.bring(process, address)
        return self.use(process, address)

    def play(self) -> None:
        try:
            for phase in self.phases:
                if "next" in phase:
                    self.empty()
                self.play_phase(phase)
            self.judge()
        finally:
            for work in self.works:
                work.close()

    def play_phase(self, modes: tuple[str, str]) -> None:
        nodes = [Process(self, modes[0]), Process(self, modes[1]), Process(self, self.random.choice(modes))]
        # Where the two kinds meet is where things go wrong.
        for _ in range(self.steps * (3 if modes == ("follow", "move") else 1)):
            place = self.random.randrange(len(nodes))
            node = nodes[place]
            if self.chance(self.crashing):
                self.kill(node)
                nodes[place] = Process(self, node.mode)
                continue
            if len(node.works) < 2:
                node.works.append(self.begin(node))
            work = self.random.choice(node.works)
            # Some hang for long between two calls, and go on with what they knew.
            if work not in self.slow or self.chance(0.1):
                self.step(node, work)
            if self.late and self.chance(0.1):
                self.arrive()
        for node in nodes:
            # A rolling restart lets nodes finish, or not.
            if self.chance(0.5):
                while node.works:
                    self.step(node, node.works[0])
            self.kill(node)

    def step(self, node: Process, work: Work) -> None:
        if not step(work):
            node.works.remove(work)

    def kill(self, node: Process) -> None:
        """As by kill -9: what it has sent is on its way."""
        for work in node.works:
            work.close()
        node.works.clear()
        for wire in node.wires:
            self.late += wire.under_way

    def arrive(self) -> None:
        """A late call takes effect; nobody hears what came of it."""
        late = self.late.pop(self.random.randrange(len(self.late)))
        run(_unheard(getattr(late.store, late.name)(*late.args, **late.options)))

    def empty(self) -> None:
        """What `store move` does, with nothing in its way, before nodes may run with the next store alone."""
        faults = self.failing, self.repeating
        self.failing = self.repeating = 0.0
        process = Process(self, "move")
        for info in run(self.former.list(limit=1000)).records:
            try:
                run(_unheard(process.store.bring(info.address)))
            except StoreUnavailable as error:
                raise Violation(f"{info.address} cannot be moved: {error}") from None
        if run(self.former.list(limit=1)).records:
            raise Violation("something is left in the former store after all was moved")
        self.failing, self.repeating = faults

    def judge(self) -> None:
        while self.late:
            self.arrive()
        # But for what nobody was ever told of: a new session of a node that died before it was acknowledged.
        left = [info for info in run(self.former.list(limit=1000)).records if info.address in self.told]
        if left:
            raise Violation(f"something came back to the former store: {left}")
        for address, told in self.told.items():
            record = run(self.next.load(address))
            if record is not None and is_placeholder(record):
                record = None
            if record is None and not told.ending:
                raise Violation(f"{address} is lost")
            if record is not None and told.ended:
                raise Violation(f"{address} had ended, and is there")
            if record is not None and record.version < told.newest:
                raise Violation(f"{address} is at version {record.version}, and {told.newest} was acknowledged")
            if record is not None and told.saved.get(record.version, record.snapshot) != record.snapshot:
                raise Violation(f"version {record.version} of {address} is not what was acknowledged")


def step(work: Work) -> bool:
    """Let it run to where others may; False if it is over."""
    try:
        work.send(None)
    except StopIteration:
        return False
    except (StoreUnavailable, StaleEpoch, RecordNotFound, RecordExists):
        return False
    return True


async def _unheard(work: Coroutine[Any, Any, object]) -> None:
    with suppress(RecordExists, RecordNotFound, StaleEpoch):
        await work


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """What comes of it where nobody else runs."""
    try:
        while True:
            work.send(None)
    except StopIteration as done:
        return done.value


def play(seed: int, phases: Sequence[tuple[str, str]] = PHASES) -> None:
    """Raises `Violation`."""
    World(seed, phases=phases).play()


def first_violation(seeds: range, phases: Sequence[tuple[str, str]] = PHASES) -> Violation | None:
    """Of these schedules."""
    for seed in seeds:
        try:
            play(seed, phases)
        except Violation as violation:
            violation.add_note(f"seed {seed}")
            return violation
    return None
