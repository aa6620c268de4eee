"""`Node`: the driver, modelled: one node's process with the real ownership machine inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.journey import Journey
from understudy.runtime.cluster.ownership import Ownership
from understudy.runtime.cluster.peers import NodeNews
from understudy.runtime.cluster.steps import (
    Answered,
    Denial,
    Event,
    Forward,
    Found,
    Load,
    Loaded,
    LookUp,
    NoRoomHere,
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
from understudy.stores import Address, Record

from .calls import NOT_RUN, Call, Status
from .cells import Cells
from .checker import Checker
from .nats import CHANGED, STRUCK, Nats
from .storage import Storage
from .weather import Weather
from .world import TIMED_OUT, Process, Promise, Script, World

__all__ = ["LEASE", "Node"]

LEASE = 3.0
TIMEOUT = 2.0
"""Of a request to the directory, or to the store outside a turn."""
LINK_DEADLINE = 8.0
LOOK = 0.25
REMOTE_PATIENCE = 5.0
MOST_STEPS = 150

_STATUS = {
    Denial.UNKNOWN: Status.NO_SESSION,
    Denial.BUSY: Status.BUSY,
    Denial.UNAVAILABLE: Status.UNAVAILABLE,
    Denial.IN_DOUBT: Status.IN_DOUBT,
}


class Node:
    """What stands at one place in the cluster: a process, and after its death another one."""

    def __init__(
        self,
        world: World,
        weather: Weather,
        nats: Nats,
        storage: Storage,
        checker: Checker,
        name: str,
        capacity: int,
        idle: float,
        linger: float,
    ) -> None:
        self.world = world
        self.name = name
        self.capacity = capacity
        self._idle = idle
        self._linger = linger
        self.nats = nats
        self.storage = storage
        self.checker = checker
        self.probed = False
        """Turns are quick now, and actors stay awake: the schedule is about to end."""
        self._weather = weather
        self._serial = 0
        self._began = 0
        self.process: Process
        self.moves = 0

    def note(self, what: str, *args: Any) -> None:
        self.world.note(self.name, what, *args)

    def clock(self) -> float:
        return self.process.clock()

    def turn_length(self) -> float:
        random = self.world.random
        if self.probed:
            return 0.01 * random.random()
        return random.random() * (0.02 if self.checker.brisk or random.random() < 0.95 else 1.0)

    def idle_after(self) -> float:
        return self._idle * self.world.random.uniform(0.5, 1.5)

    # The process

    def start(self) -> None:
        self.process = Process(self.world, self.name)
        self.ownership = Ownership(f"{self.name}.0", lease=LEASE)
        self.cells = Cells(self)
        self.listens_as = self.listened_as = ""
        self.closing = False
        self.accepted: dict[str, Call] = {}
        self.serving = 0
        self._resting: dict[Address, int] = {}
        self._rests = 0
        self.note("starts")
        self.process.spawn(self._live())

    def kill(self) -> None:
        """-9. Whoever waits for it at its edge sees the connection break."""
        self.note("is killed")
        self.process.kill()
        for call in list(self.accepted.values()):
            self.checker.end(call, Status.BROKEN)
        self.accepted.clear()

    # The lease

    def _live(self) -> Script:
        while True:
            leases = yield from self._nats(lambda: list(self.nats.leases.values()))
            if leases is not TIMED_OUT:
                break
        for news in leases:
            self.ownership.heard(news, self.clock())
        self.process.timer(LOOK, self._tick_again)
        while True:
            began = self.clock()
            ok = yield from self._renew()
            yield max(0.01, LEASE / 3 - (self.clock() - began) if ok else 0.2)

    def _renew(self) -> Script:
        self.tick()
        ownership = self.ownership
        if ownership.may_run(self.clock()):
            news = self._news(ownership.me)
            sent = self.clock()
            answer = yield from self._nats(lambda: self.nats.renew(news), LEASE / 3)
            if answer == STRUCK:
                self._lapsed(ownership.struck())
            elif answer == "ok":
                ownership.renewed(sent)
            return answer == "ok"
        self._serial = max(self._serial + 1, int(self.world.now * 1000))
        incarnation = f"{self.name}.{self._serial}"
        self.listens_as, self.listened_as = incarnation, ""
        news = self._news(incarnation)
        sent = self.clock()
        answer = yield from self._nats(lambda: self.nats.begin(news), LEASE / 3)
        if answer == "ok":
            ownership.begin(incarnation, sent)
            self.note("has a lease as %s", incarnation)
        return answer == "ok"

    def _news(self, incarnation: str) -> NodeNews:
        return NodeNews(
            incarnation,
            LEASE,
            sessions=len(self.cells),
            capacity=self.capacity,
            draining=self.ownership.draining,
            serial=self._serial,
        )

    def hear(self, news: NodeNews | str) -> None:
        """Of another node's lease; text: it is gone."""
        if isinstance(news, str):
            self.ownership.peers.left(news)
        else:
            self.ownership.heard(news, self.clock())

    def reconnected(self) -> None:
        self.ownership.reconnected(self.clock())

    def tick(self) -> None:
        now = self.clock()
        self._lapsed(self.ownership.lapse(now))
        self.ownership.peers.newly_dead(now)

    def _tick_again(self) -> None:
        self.tick()
        self.process.timer(LOOK, self._tick_again)

    def _lapsed(self, held: list[Address] | None) -> None:
        if held is not None:
            self.note("its lease as %s is over", self.ownership.me)
            self._resting.clear()
            self.cells.lapse()

    def _nats(self, apply: Callable[[], Any], timeout: float = TIMEOUT) -> Script:
        """A request; `TIMED_OUT` also at once when the connection is known to be down."""
        if not self.nats.reaches(self.name):
            yield 0.05
            return TIMED_OUT
        answer = yield self.process.within(timeout, self.nats.request(self.name, self.process, apply))
        return answer

    # The edge

    def accept(self, call: Call) -> None:
        """A client's request has come."""
        self.accepted[call.id] = call
        self.process.post(self._accept, call)

    def _accept(self, call: Call) -> None:
        self.process.spawn(self._handle(call), lambda answer: self._answered(call, answer))

    def _answered(self, call: Call, answer: tuple[str, tuple[str, ...]]) -> None:
        self.accepted.pop(call.id, None)
        self.checker.end(call, *answer)

    def _handle(self, call: Call) -> Script:
        if call.kind == "open":
            answer = yield from self._open(call)
            return answer
        if self.cells.live(call.address) and self.ownership.may_run(self.clock()):
            answer = yield self.cells.deliver(call)
            if isinstance(answer, tuple):
                return answer
        journey = Journey(self.ownership, call.address, self.clock())
        answer = yield from self._travel(call, journey, "")
        return answer

    def _travel(self, call: Call, journey: Journey, remote: str) -> Script:
        """Lead a call to its end: its answer, or the `Refuse` of one that was forwarded here."""
        answer: tuple[str, tuple[str, ...]] = (Status.OK, ())
        step: Step | None = journey.begin(self.clock())
        steps = 0
        while step is not None:
            steps += 1
            if steps > MOST_STEPS:
                self.checker.fail("bounded", f"{call} takes more than {MOST_STEPS} steps")
            if self.world.lines is not None:
                self.note("%s%s: %s", call, remote, step)
            if isinstance(step, Refuse):
                call.corrections = max(call.corrections, journey.corrections)
                return step if remote else (_STATUS[step.denial], ())
            if isinstance(step, Pause):
                yield step.seconds
                step = journey.resume(self.clock())
                continue
            event: Event
            if isinstance(step, Run):
                came = yield self.cells.deliver(call)
                if call.address not in self.cells:
                    self.rest(call.address)
                if isinstance(came, tuple):
                    answer, event = came, Answered()
                else:
                    event = came
                    if isinstance(came, NoRoomHere):
                        self.checker.moved(call.address)
            elif isinstance(step, Forward):
                came = yield from self._forward(call, step.to)
                if isinstance(came, tuple):
                    answer, event = came, Answered()
                else:
                    event = came
            else:
                event = yield from self._ask(step, call.address)
            step = journey.advance(event, self.clock())
        call.corrections = max(call.corrections, journey.corrections)
        if journey.maybe_ran and answer[0] in NOT_RUN:
            return (Status.IN_DOUBT, ())
        return answer

    def _ask(self, step: Step, address: Address) -> Script:
        match step:
            case LookUp():
                found = yield from self._nats(lambda: (self.nats.look_up(address),))
                return Unreachable() if found is TIMED_OUT else Found(found[0])
            case Load():
                request = self.storage.load(self.process, address)
                record = yield self.process.within(TIMEOUT, request)
                if record is TIMED_OUT:
                    return Unreachable()
                if not isinstance(record, Record):
                    return Loaded(None)
                peer = self.ownership.peers.get(record.owner)
                return Loaded(peer.incarnation if peer is not None else "", record.epoch)
            case Write(entry, striking):
                if striking:
                    struck = yield from self._nats(lambda: self.nats.strike(striking))
                    if struck is TIMED_OUT:
                        return Unreachable()
                revision = yield from self._write(address, entry)
                if revision is TIMED_OUT:
                    return Unreachable()
                return TakenAway() if revision == CHANGED else Taken(revision)
            case _:
                raise AssertionError(step)

    def _write(self, address: Address, entry: Entry) -> Script:
        return self._nats(lambda: self.nats.write(self.name, address, entry))

    # Opening

    def _open(self, call: Call) -> Script:
        if not self.ownership.may_run(self.clock()) or self.ownership.draining:
            return (Status.UNAVAILABLE, ())
        if not (yield from self.cells.open(call.address)):
            return (Status.IN_DOUBT, ())
        entry = self.ownership.opened(call.address)
        if entry is not None:
            done = Promise()
            self.process.spawn(self._announce(call.address, entry), done.resolve)
            yield self.process.within(1.0, done)
        return (Status.OK, ())

    def _announce(self, address: Address, entry: Entry) -> Script:
        revision = yield from self._write(address, entry)
        if isinstance(revision, int) and not self.ownership.published(address, revision, entry.incarnation):
            yield from self._write(address, Entry("", entry.epoch, revision))

    # Holdings

    def confirms(self, address: Address, epoch: int) -> Script:
        """The store has given `epoch`; whether turns may run."""
        self._resting.pop(address, None)
        entry = self.ownership.claimed(address, epoch)
        if entry is None:
            return True
        revision = yield from self._write(address, entry)
        return isinstance(revision, int) and self.ownership.published(address, revision, entry.incarnation)

    def rest(self, address: Address) -> None:
        """Its actor sleeps here: let go of the address after a while."""
        if not self.ownership.holds(address) or self.probed:
            return
        self._rests += 1
        self._resting[address] = self._rests
        self.process.timer(self.world.random.uniform(0.05, 1.5) * self._linger, self._sweep, address, self._rests)

    def _sweep(self, address: Address, rest: int) -> None:
        if self._resting.get(address) != rest:
            return
        del self._resting[address]
        if address in self.cells or self.ownership.handing_off(address):
            return
        entry = self.ownership.release(address)
        if entry is not None:
            self.process.spawn(self._release(address, entry))

    def _release(self, address: Address, entry: Entry) -> Script:
        self.checker.moved(address)
        yield from self._write(address, entry)
        self.ownership.released(address)

    # Leaving

    def drain(self, *, leave: bool) -> None:
        self.note("drains")
        self.ownership.draining = True
        self.process.spawn(self._drain(leave))

    def undrain(self) -> None:
        self.note("takes new sessions again")
        self.ownership.draining = False

    def give_one_away(self) -> None:
        """Move one session to another node, without a drain."""
        if not self.process.dead and not self.process.stopped and self.ownership.addresses:
            self.process.spawn(self._move(self.world.random.choice(self.ownership.addresses)))

    def _move(self, address: Address) -> Script:
        if not self.ownership.hand_off(address) and self.ownership.handing_off(address):
            return
        left = self.cells.hand_off(address)
        if left is not None:
            yield left
        yield 0.002 * self.world.random.random()
        peer = self.ownership.peers.roomiest(self.clock())
        if peer is not None:
            self.ownership.peers.assign(peer)
        entry = self.ownership.handed_off(address, peer.incarnation if peer is not None else "")
        self.checker.moved(address)
        for _ in range(3):
            if entry is None or (yield from self._write(address, entry)) is not TIMED_OUT:
                return
            yield 0.05

    def _drain(self, leave: bool) -> Script:
        while self.ownership.draining:
            for address in dict.fromkeys((*self.cells.addresses(), *self.ownership.addresses)):
                yield from self._move(address)
            if leave and not self.ownership.addresses and not len(self.cells):
                self.closing = True
                yield 0.05
                if not self.accepted and not self.serving:
                    # What was on its way when the subscription ended is still answered.
                    self.listened_as, self.listens_as = self.listens_as, ""
                    yield 0.05
                    if not self.accepted and not self.serving:
                        yield from self._nats(lambda: self.nats.strike(self.listened_as))
                        self.note("leaves")
                        self.process.kill()
                        return
                    self.listens_as = self.ownership.me
            yield 0.05

    # The link

    def _forward(self, call: Call, to: str) -> Script:
        came = Promise()
        process = self.process
        began = self.clock()
        repeatable = call.repeatable

        def respond(source: Node, value: Any) -> None:
            nats, weather = self.nats, self._weather
            if nats.reaches(source.name) and not weather.loses():
                self.world.after(weather.delay(), lambda: nats.reaches(self.name) and process.post(came.resolve, value))

        def deliver(target: Node) -> None:
            if to in (target.listens_as, target.listened_as):
                target.serve(call, respond)

        def nobody(maybe_ran: bool) -> None:
            process.post(came.resolve, PathBroken(maybe_ran, repeatable, dead=True))

        def look() -> None:
            if came.done:
                return
            if self.ownership.peers.is_dead(to, self.clock()):
                came.resolve(PathBroken(True, repeatable, dead=True))
            elif self.clock() - began > LINK_DEADLINE:
                came.resolve(PathBroken(True, repeatable, dead=False))
            else:
                if self.world.chance(0.3):
                    self.nats.send(self.name, to, lambda _: None, lambda: nobody(True))
                process.timer(LOOK, look)

        if not self.nats.send(self.name, to, deliver, lambda: nobody(False)):
            yield 0.01
            return PathBroken(False, repeatable, dead=False)
        process.timer(LOOK, look)
        event = yield came
        return event

    def serve(self, call: Call, respond: Callable[[Node, Any], None]) -> None:
        """A call that another node has forwarded."""
        self.serving += 1

        def served(answer: Any) -> None:
            self.serving -= 1
            respond(self, answer)

        self.process.spawn(self._serve(call), served)

    def _serve(self, call: Call) -> Script:
        if self.cells.live(call.address) and self.ownership.may_run(self.clock()):
            answer = yield self.cells.deliver(call)
            if isinstance(answer, tuple):
                return answer
        journey = Journey(self.ownership, call.address, self.clock(), remote=True, patience=REMOTE_PATIENCE)
        answer = yield from self._travel(call, journey, f" (forwarded to {self.name})")
        if not isinstance(answer, Refuse):
            return answer
        match answer.denial:
            case Denial.UNKNOWN:
                return (Status.NO_SESSION, ())
            case Denial.BUSY:
                self.checker.moved(call.address)
                return NotRunThere(answer.entry, full=True)
            case Denial.UNAVAILABLE:
                return NotRunThere()
            case Denial.ELSEWHERE:
                return NotRunThere(answer.entry)
            case Denial.IN_DOUBT:
                raise AssertionError("a call that was forwarded here is not forwarded on")
