"""What goes wrong in a schedule, and when: chosen by the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .nats import Nats
from .node import LEASE, Node
from .storage import Storage
from .weather import Weather
from .world import World

__all__ = ["KINDS", "Faults"]


@dataclass(slots=True)
class Faults:
    """The faults of one schedule. All are over at `heal`."""

    world: World
    weather: Weather
    nats: Nats
    storage: Storage
    nodes: list[Node]
    restarts: set[str] = field(default_factory=set[str])
    lossy: bool = False
    store_hurt: bool = False
    hit: Node | None = None
    """Of the themes with one fault: who suffers it, and since when."""
    hit_at: float = 0.0
    sure: bool = False
    """Nodes notice without fail that they have been cut off."""

    def plan(self, theme: str, until: float) -> None:
        """Let what the theme says happen before `until`."""
        random = self.world.random
        match theme:
            case "no fault" | "no room":
                return
            case "one crash":
                acts = [lambda: self._crash_for(self._hit(), 4.0)]
            case "one stop":
                acts = [lambda: self._stop_for(self._hit(), 2.5 * LEASE)]
            case "NATS blinks":
                acts = [self._blink]
            case "blackout":
                acts = [self._blackout]
            case _:
                kinds = THEMES.get(theme, tuple(KINDS))
                acts = [random.choice(kinds) for _ in range(random.choice((1, 2, 2, 3, 4, 5)))]
                for kind in acts:
                    self.world.after(random.uniform(0.8, until), KINDS[kind], self)
                return
        self.sure = True
        for act in acts:
            self.world.after(random.uniform(2.5, until / 2), act)

    def heal(self) -> None:
        self.world.note("faults", "are over")
        self.weather.clear()
        self.weather.frozen_until = 0.0
        for node in self.nodes:
            self._go_on(node)
            self._mend(node)
            if node.process.dead:
                node.start()
        self._nats_up()

    # Each of them

    def crash(self) -> None:
        node = self._any()
        if node.process.dead:
            return
        node.kill()
        self.world.after(self.world.random.choice((0.1, 1.0, 4.0)), self._restart, node)

    def _restart(self, node: Node) -> None:
        if node.process.dead:
            node.start()

    def _hit(self) -> Node:
        """A node that some session lives at, so that it matters."""
        owners = [node for node in self.nodes if len(node.cells)]
        self.hit = self.world.random.choice(owners or self.nodes)
        self.hit_at = self.world.now
        return self.hit

    def _crash_for(self, node: Node, seconds: float) -> None:
        node.kill()
        self.world.after(seconds, self._restart, node)

    def _stop_for(self, node: Node, seconds: float) -> None:
        self.world.note("faults", "%s is stopped for %.2f s", node.name, seconds)
        node.process.stop()
        self.world.after(seconds, self._go_on, node)

    def _blink(self) -> None:
        self._nats_down(0.3)

    def _blackout(self) -> None:
        self._nats_down(60.0)

    def stop(self) -> None:
        node = self._any()
        seconds = self.world.random.uniform(0.1, 3 * LEASE)
        if node.process.dead or node.process.stopped:
            return
        self._stop_for(node, seconds)

    def _go_on(self, node: Node) -> None:
        if node.process.stopped:
            node.note("goes on")
            node.process.go_on()

    def cut(self) -> None:
        node = self._any()
        seconds = self.world.random.choice((0.05, 0.5, 2.0, 2 * LEASE)) * self.world.random.uniform(0.5, 1.5)
        self.world.note("faults", "%s is cut from NATS for %.2f s", node.name, seconds)
        self.nats.cut.add(node.name)
        self.world.after(seconds, self._mend, node)

    def _mend(self, node: Node) -> None:
        if node.name in self.nats.cut:
            node.note("reaches NATS again")
            self.nats.cut.discard(node.name)
            if not node.process.dead and (self.world.chance(0.8) or self.sure):
                node.process.post(node.reconnected)

    def nats_down(self) -> None:
        self._nats_down(self.world.random.choice((0.1, 1.0, 2 * LEASE)) * self.world.random.uniform(0.5, 1.5))

    def _nats_down(self, seconds: float) -> None:
        self.world.note("faults", "NATS is down for %.2f s", seconds)
        self.nats.down = True
        self.world.after(seconds, self._nats_up)

    def _nats_up(self) -> None:
        if not self.nats.down:
            return
        self.world.note("faults", "NATS is back")
        self.nats.down = False
        for node in self.nodes:
            # Each comes back when it notices.
            self.nats.cut.add(node.name)
            self.world.after(self.world.random.random(), self._mend, node)

    def store_freezes(self) -> None:
        seconds = self.world.random.uniform(0.5, 3.0)
        self.store_hurt = True
        self.world.note("faults", "the store freezes for %.2f s", seconds)
        self.weather.frozen_until = self.world.now + seconds

    def foul_network(self) -> None:
        self.world.note("faults", "messages are lost, late and repeated")
        chance = self.world.random.choice((0.02, 0.1, 0.3))
        self.weather.lost = chance / 2
        self.weather.late = self.weather.twice = chance
        self.world.after(self.world.random.uniform(0.5, 4.0), self.weather.clear)

    def foul_store(self) -> None:
        self.store_hurt = True
        self.world.note("faults", "the store answers late, twice, or not at all")
        chance = self.world.random.choice((0.05, 0.2, 0.5))
        self.weather.store_lost = chance / 2
        self.weather.store_late = self.weather.store_twice = chance
        self.world.after(self.world.random.uniform(0.5, 4.0), self.weather.clear)

    def directory_loses(self) -> None:
        self.lossy = True
        for address in list(self.nats.entries):
            if self.world.chance(0.5):
                self.nats.lose(address, whole=self.world.chance(0.5))

    def _any(self) -> Node:
        return self.world.random.choice(self.nodes)


KINDS: dict[str, Callable[[Faults], None]] = {
    "crash": Faults.crash,
    "crash again": Faults.crash,
    "stop": Faults.stop,
    "stop again": Faults.stop,
    "cut": Faults.cut,
    "cut again": Faults.cut,
    "NATS down": Faults.nats_down,
    "store freezes": Faults.store_freezes,
    "foul network": Faults.foul_network,
    "foul network again": Faults.foul_network,
    "foul store": Faults.foul_store,
    "directory loses": Faults.directory_loses,
}

THEMES: dict[str, tuple[str, ...]] = {
    "cuts": ("cut",),
    "stops": ("stop", "stop", "cut"),
    "crashes": ("crash", "crash", "stop", "cut"),
    "foul network": ("foul network", "foul network", "crash", "cut"),
    "foul store": ("foul store", "store freezes", "crash", "cut"),
}
