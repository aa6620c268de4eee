"""`run`: one schedule, from its seed."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.stores import Address

from .calls import Call, Status
from .checker import LONGEST, Checker, Violation
from .faults import Faults
from .nats import Nats
from .node import LEASE, Node
from .storage import Storage
from .weather import Weather
from .world import World

__all__ = ["Outcome", "run"]

THEMES = (
    "no fault", "any faults", "cuts", "any faults", "stops", "one crash", "any faults", "foul network",
    "no fault", "any faults", "one stop", "cuts", "any faults", "foul store", "crashes", "any faults",
    "no room", "any faults", "NATS blinks", "cuts", "any faults", "blackout", "stops", "any faults",
)  # fmt: skip
KINDS = ("add", "add", "set", "read", "read")
BUSY_FOR = 8.0
"""Seconds of calls and faults."""
SETTLING = 9.0
"""Seconds after the faults in which the cluster must come to rest: what was sent last arrives, leases run out."""
PROBING = 2.0
"""Seconds in which each session must then answer at each node."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a schedule."""

    seed: int
    violation: str
    calls: int
    answered: int
    virtual: float
    events: int
    lines: list[str] | None


def run(seed: int, *, tracing: bool = False) -> Outcome:
    """Play one schedule. Bugs in the machine that raise count as violations."""
    schedule = Schedule(seed, tracing)
    violation = ""
    try:
        schedule.play()
    except Violation as found:
        violation = str(found)
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        violation = f"the machine raised {error!r}"
    calls = schedule.checker.calls.values()
    return Outcome(
        seed,
        violation,
        len(calls),
        sum(call.status == Status.OK for call in calls),
        schedule.world.now,
        schedule.world.events,
        schedule.world.lines,
    )


class Schedule:
    """A cluster with its clients and its faults."""

    def __init__(self, seed: int, tracing: bool) -> None:
        self.world = world = World(seed, tracing=tracing)
        random = world.random
        weather = Weather(world)
        self.nats = Nats(world, weather)
        self.storage = Storage(world, weather)
        self.checker = Checker(world, self.storage, LEASE)
        self.theme = THEMES[seed % len(THEMES)]
        self.faulty = self.checker.faulty = self.theme not in ("no fault", "no room")
        count = random.choice((2, 2, 3, 3, 3, 4, 5, 7))
        sessions = random.randint(1, 3)
        capacity = 1 if self.theme == "no room" else 2 if random.random() < 0.15 and self.theme == "any faults" else 100
        self.checker.brisk = self.theme.startswith("one ")
        self.checker.limited = capacity < 100
        idle = random.choice((0.3, 2.0, 60.0))
        # Clients' streams keep an address at its node while its actor sleeps.
        linger = random.choice((1.0, 4.0))
        self.nodes = [
            Node(world, weather, self.nats, self.storage, self.checker, f"n{number}", capacity, idle, linger)
            for number in range(1, count + 1)
        ]
        self.nats.nodes = {node.name: node for node in self.nodes}
        self.faults = Faults(world, weather, self.nats, self.storage, self.nodes)
        self._wanted = sessions
        self.busy_for = 22.0 if self.theme == "blackout" else BUSY_FOR
        self.sessions: list[Address] = []
        self._number = 0

    def play(self) -> None:
        world, random = self.world, self.world.random
        for node in self.nodes:
            node.start()
        world.run(0.2)
        for number in range(self._wanted):
            # The id is short for the trace's sake: only the real `Address.new` has to be hard to guess.
            world.after(random.random() * 2.0, self._open, Address("session", f"s{number}"))
        if random.random() < 0.6:
            # Readers and writers that stay where they are: what one node does not know shows there.
            for node in self.nodes:
                world.after(random.random(), self._client, node, ("read",), random.choice((0.15, 0.4)))
            writers = random.sample(self.nodes, random.randint(1, min(2, len(self.nodes))))
            for node in writers:
                world.after(random.random(), self._client, node, ("add", "set", "add"), random.choice((0.4, 1.0)))
        else:
            for _ in range(random.randint(2, 6)):
                world.after(random.random(), self._client, None, KINDS, random.choice((0.15, 0.4, 1.0)))
        self.faults.plan(self.theme, BUSY_FOR)
        if self.theme in ("no fault", "no room", "any faults"):
            self._move_things()
        world.run(self.busy_for + 0.5)
        if self.theme == "blackout":
            self.checker.check_patience()
        self.faults.heal()
        self.checker.lossy = self.faults.lossy
        for node in self.nodes:
            if not node.closing:
                node.undrain()
        world.run(world.now + SETTLING)
        self._probe()
        if any(not call.status for call in self.checker.calls.values()):
            world.run(world.now + LONGEST)
        self.checker.check()
        if self.faults.hit is not None:
            self.checker.check_one_fault(self.theme, self.faults.hit.name, self.faults.hit_at)
        if self.theme in ("no fault", "no room", "NATS blinks") and any(node.ownership.lapses for node in self.nodes):
            self.checker.fail("live again", f"a node lost its lease by {self.theme}")

    def _move_things(self) -> None:
        world, random = self.world, self.world.random
        if random.random() < 0.5:
            for node in random.sample(self.nodes, random.randint(1, len(self.nodes) - 1)):
                world.after(random.uniform(1.0, BUSY_FOR), self._drain, node)
        if random.random() < 0.5:
            for _ in range(random.randint(1, 40 if self.theme == "no room" else 10)):
                world.after(random.uniform(1.0, BUSY_FOR), lambda: random.choice(self.nodes).give_one_away())

    # Clients

    def call(self, kind: str, address: Address, node: Node) -> Call:
        self._number += 1
        call = Call(f"{kind}{self._number}", kind, address, self.world.now, node.name)
        self.checker.begin(call)
        node.accept(call)
        return call

    def _open(self, address: Address) -> None:
        node = self._some_node()
        if node is None or node.ownership.draining:
            self.world.after(0.3, self._open, address)
            return
        call = self.call("open", address, node)
        self._opened(call)

    def _opened(self, call: Call) -> None:
        if call.status == Status.OK:
            self.sessions.append(call.address)
        elif call.status and not self.checker.faulty:
            self.checker.fail("any-node", f"{call} ended as {call.status!r} though there was no fault")
        elif not call.status and self.world.now < BUSY_FOR:
            self.world.after(0.02, self._opened, call)

    def _client(self, node: Node | None, kinds: tuple[str, ...], pace: float) -> None:
        """Ask on, whatever comes of it, at `node` or at any."""
        if self.world.now > self.busy_for + LEASE:
            return
        random = self.world.random
        at = node or self._some_node()
        if at is not None and self.sessions and not at.process.dead and not at.closing:
            kind = random.choice(kinds)
            address = random.choice(self.sessions)
            if random.random() < 0.02:
                kind, address = "stray", Address("session", "nobody")
            self.call(kind, address, at)
        self.world.after(pace * 2 * random.random(), self._client, node, kinds, pace)

    def _some_node(self) -> Node | None:
        up = [node for node in self.nodes if not node.process.dead and not node.closing]
        return self.world.random.choice(up) if up else None

    def _drain(self, node: Node) -> None:
        others = [other for other in self.nodes if other is not node and not other.process.dead]
        if node.process.dead or not any(not other.ownership.draining for other in others):
            return
        leave = self.world.chance(0.5)
        node.drain(leave=leave)
        if not leave and self.world.chance(0.5):
            self.world.after(self.world.random.uniform(0.2, 2.0), node.undrain)

    # Live again

    def _probe(self) -> None:
        for node in self.nodes:
            node.probed, node.capacity = True, 100
        up = [node for node in self.nodes if not node.process.dead and not node.closing]
        if self.faults.lossy or self.faults.store_hurt:
            # An owner that the directory has forgotten, or that a claim which came late has fenced, learns it at its
            # next save.
            for _ in range(2):
                self._ask_everywhere(up, ("add",))
                self.world.run(self.world.now + PROBING)
        self.world.note("probe", "every session at every node")
        began = self.world.now
        probes = self._ask_everywhere(up, ("add", "read"))
        self.world.run(began + PROBING)
        for call in probes:
            if call.status != Status.OK:
                self.checker.fail("live again", f"{call} {call.status or 'has no answer'} long after all faults")
        claims = self.storage.claims
        probes = self._ask_everywhere(up, ("read",))
        self.world.run(self.world.now + PROBING)
        for call in probes:
            if call.status != Status.OK:
                self.checker.fail("live again", f"{call} {call.status or 'has no answer'} long after all faults")
        if self.storage.claims != claims:
            self.checker.fail("live again", f"{self.storage.claims - claims} claims by a cluster that is at rest")

    def _ask_everywhere(self, nodes: list[Node], kinds: tuple[str, ...]) -> list[Call]:
        calls: list[Call] = []
        for address in self.sessions:
            for node in nodes:
                for kind in kinds:
                    delay = self.world.random.random() * 0.5
                    self.world.after(delay, self._ask, calls, kind, address, node)
        return calls

    def _ask(self, calls: list[Call], kind: str, address: Address, node: Node) -> None:
        calls.append(self.call(kind, address, node))
