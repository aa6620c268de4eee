"""`MemoryHub`: a network for links in one process, with the faults of a real one. For tests."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Final

from ...actors.clock import Clock, SystemClock
from .wire import Letter, WireEvents

__all__ = ["MemoryHub", "MemoryWire"]

MAX_FROZEN: Final = 100_000


class MemoryHub:
    """Carries payloads between its wires. The same seed, with the same order of events, makes the same faults."""

    def __init__(self, clock: Clock | None = None, *, seed: int = 0, max_payload: int = 1024 * 1024) -> None:
        """`max_payload` in bytes."""
        self.max_payload = max_payload
        self.drop = self.duplicate = self.corrupt = 0.0
        """Probabilities, of each payload."""
        self.delay: tuple[float, float] = (0.0, 0.0)
        """Seconds, least and most. With a spread, payloads overtake each other."""
        self.sent: list[tuple[str, str, int]] = []
        """Sender, receiver and size of every payload that was published."""
        self._clock: Clock = clock or SystemClock()
        self._random = random.Random(seed)
        self._listeners: dict[str, tuple[MemoryWire, WireEvents]] = {}
        self._draining: set[str] = set()
        self._cut: set[str] = set()
        self._apart: set[frozenset[str]] = set()
        self._frozen: dict[str, deque[tuple[str, bytes]]] = {}

    def wire(self) -> MemoryWire:
        """A wire for one link."""
        return MemoryWire(self)

    def cut(self, *names: str) -> None:
        """Those have lost their connection: they publish nothing, and publishing to them says that nobody listens."""
        self._cut.update(names)

    def is_cut(self, name: str) -> bool:
        """Whether `name` has lost its connection."""
        return name in self._cut

    def mend(self, *names: str) -> None:
        """Those are connected again, and know it."""
        for name in names:
            self._cut.discard(name)
            listener = self._listeners.get(name)
            if listener is not None:
                listener[1].on_reconnect()

    def part(self, one: str, other: str) -> None:
        """What these two publish to each other is lost without a word."""
        self._apart.add(frozenset((one, other)))

    def freeze(self, name: str) -> None:
        """What is published to `name` waits, as at a process that is stopped."""
        self._frozen.setdefault(name, deque())

    def thaw(self, name: str) -> None:
        """All that has waited arrives."""
        for source, payload in self._frozen.pop(name, ()):
            self._arrive(name, source, payload)

    def listen(self, name: str, wire: MemoryWire, events: WireEvents) -> None:
        """`wire` is `name` from now on, and nothing else."""
        self.leave(wire)
        self._listeners[name] = (wire, events)

    def drain(self, wire: MemoryWire) -> None:
        """`wire` hears what is on its way, and nothing that is published from now on."""
        self._draining.update(name for name, (listener, _) in self._listeners.items() if listener is wire)

    def leave(self, wire: MemoryWire) -> None:
        """`wire` hears nothing any more."""
        for name in [name for name, (listener, _) in self._listeners.items() if listener is wire]:
            del self._listeners[name]
            self._draining.discard(name)

    def carry(self, source: str, target: str, payload: bytes, tag: str) -> bool:
        """Publish; False if `source` is cut off."""
        if source in self._cut:
            return False
        self.sent.append((source, target, len(payload)))
        if target not in self._listeners or target in self._cut or target in self._draining:
            asyncio.get_running_loop().call_soon(self._nobody, source, target, tag)
            return True
        if frozenset((source, target)) in self._apart or self._random.random() < self.drop:
            return True
        copies = 2 if self._random.random() < self.duplicate else 1
        for _ in range(copies):
            copy = self._damage(payload) if self._random.random() < self.corrupt else payload
            delay = self._random.uniform(*self.delay)
            if delay <= 0:
                asyncio.get_running_loop().call_soon(self._arrive, target, source, copy)
            else:
                self._later(delay, target, source, copy)
        return True

    def _later(self, delay: float, target: str, source: str, payload: bytes) -> None:
        self._clock.call_at(self._clock.monotonic() + delay, lambda: self._arrive(target, source, payload))

    def _damage(self, payload: bytes) -> bytes:
        at = self._random.randrange(len(payload))
        return payload[:at] + bytes((payload[at] ^ (1 << self._random.randrange(8)),)) + payload[at + 1 :]

    def _arrive(self, target: str, source: str, payload: bytes) -> None:
        if target in self._cut:
            return
        frozen = self._frozen.get(target)
        if frozen is not None:
            if len(frozen) < MAX_FROZEN:
                frozen.append((source, payload))
            return
        listener = self._listeners.get(target)
        if listener is not None:
            listener[1].on_payload(source, payload)

    def _nobody(self, source: str, target: str, tag: str) -> None:
        listener = self._listeners.get(source)
        if listener is not None and source not in self._cut:
            listener[1].on_no_responders(target, tag)


class MemoryWire:
    """A `Wire` of a `MemoryHub`."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._me = ""

    @property
    def max_payload(self) -> int:
        return self._hub.max_payload

    @property
    def crowded(self) -> bool:
        return False

    async def listen(self, me: str, events: WireEvents) -> None:
        self._me = me
        self._hub.listen(me, self, events)

    async def publish(self, peer: str, payload: bytes, tag: str) -> bool:
        return self._hub.carry(self._me, peer, payload, tag)

    def publish_at_once(self, letters: Sequence[Letter]) -> bool:
        if self._hub.is_cut(self._me):
            return False
        for letter in letters:
            self._hub.carry(self._me, *letter)
        return True

    async def catch_up(self) -> None:
        await asyncio.sleep(0)

    async def drain(self) -> None:
        self._hub.drain(self)
        await asyncio.sleep(0)

    async def close(self) -> None:
        self._hub.leave(self)
