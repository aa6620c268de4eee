"""`Nats`: the server that holds directory and leases and carries messages, as far as a node can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from understudy.runtime.cluster.entry import Entry, node_of
from understudy.runtime.cluster.peers import NodeNews
from understudy.stores import Address

from .weather import Weather
from .world import Process, Promise, World

if TYPE_CHECKING:
    from .node import Node

__all__ = ["CHANGED", "STRUCK", "Nats"]

CHANGED = "changed"
STRUCK = "struck"


class Nats:
    """One server, as far as faults go: it is up or down, and each node can reach it or cannot."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self._weather = weather
        self.nodes: dict[str, Node] = {}
        self.down = False
        self.cut: set[str] = set()
        self.entries: dict[Address, Entry] = {}
        self.history: dict[Address, list[Entry]] = {}
        self.leases: dict[str, NodeNews] = {}
        self._revision = 0

    def reaches(self, node: str) -> bool:
        return not self.down and node not in self.cut

    # Requests

    def request(self, node: str, process: Process, apply: Callable[[], Any]) -> Promise:
        """One round trip. Either way may be lost: the promise then stays open."""
        promise = Promise()
        world, weather = self._world, self._weather

        def arrive() -> None:
            if self.down:
                return
            answer = apply()
            if self.reaches(node) and not weather.loses():
                world.after(weather.delay(), back, answer)

        def back(answer: Any) -> None:
            if self.reaches(node):
                process.post(promise.resolve, answer)

        if self.reaches(node) and not weather.loses():
            world.after(weather.delay(), arrive)
        return promise

    # The directory

    def look_up(self, address: Address) -> Entry | None:
        return self.entries.get(address)

    def write(self, who: str, address: Address, entry: Entry) -> int | str:
        present = self.entries.get(address)
        if (present.revision if present is not None else 0) != entry.revision:
            self._world.note("directory", "%s: %s refused to %s", address.id, entry, who)
            return CHANGED
        self._revision += 1
        written = Entry(entry.incarnation, entry.epoch, self._revision)
        self.history.setdefault(address, []).append(written)
        self.entries[address] = written
        self._world.note(
            "directory", "%s: %s epoch %d revision %d (by %s)",
            address.id, written.incarnation or "asleep", written.epoch, written.revision, who,
        )  # fmt: skip
        return self._revision

    def lose(self, address: Address, *, whole: bool) -> None:
        """What Jepsen saw: acknowledged entries vanish, or are again what they were."""
        history = self.history.get(address)
        if not history:
            return
        if whole or len(history) == 1:
            self.entries.pop(address, None)
            history.clear()
        else:
            history.pop()
            self.entries[address] = history[-1]
        self._world.note("directory", "%s: lost an acknowledged write, is %s", address.id, self.entries.get(address))

    # Leases

    def begin(self, news: NodeNews) -> str:
        self.leases[news.node] = news
        self._publish(news.node, news)
        return "ok"

    def renew(self, news: NodeNews) -> str:
        present = self.leases.get(news.node)
        if present is None or present.incarnation != news.incarnation:
            return STRUCK
        return self.begin(news)

    def strike(self, incarnation: str) -> str:
        node = node_of(incarnation)
        present = self.leases.get(node)
        if present is not None and present.incarnation == incarnation:
            self._world.note("leases", "%s is struck", incarnation)
            del self.leases[node]
            self._publish(node, incarnation)
        return "ok"

    def _publish(self, about: str, news: NodeNews | str) -> None:
        world, weather = self._world, self._weather
        for node in self.nodes.values():
            if node.name == about or not self.reaches(node.name) or weather.loses():
                continue
            world.after(weather.delay(), self._hear, node, node.process, news)
            if weather.repeats():
                world.after(weather.delay(), self._hear, node, node.process, news)

    def _hear(self, node: Node, process: Process, news: NodeNews | str) -> None:
        if self.reaches(node.name):
            process.post(node.hear, news)

    # Messages to an incarnation

    def send(self, source: str, to: str, deliver: Callable[[Node], None], nobody: Callable[[], None]) -> bool:
        """`deliver` at the process that listens as `to`, or `nobody` at the source; or neither. False: not sent."""
        world, weather = self._world, self._weather
        if not self.reaches(source):
            return False

        def arrive() -> None:
            if self.down:
                return
            target = self.listener(to)
            if target is None:
                if not weather.loses():
                    world.after(weather.delay(), lambda: self.reaches(source) and nobody())
            elif not weather.loses():
                process = target.process
                world.after(weather.delay(), lambda: self.reaches(target.name) and process.post(deliver, target))

        if not weather.loses():
            world.after(weather.delay(), arrive)
        return True

    def listener(self, incarnation: str) -> Node | None:
        """Who listens as `incarnation` now."""
        node = self.nodes.get(node_of(incarnation))
        if node is None or node.process.dead or not self.reaches(node.name) or node.listens_as != incarnation:
            return None
        return node
