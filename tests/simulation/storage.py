"""`Storage`: the real `MemoryStore`, behind a network that may lose, delay and repeat what is said to it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from understudy.stores import Address, MemoryStore, Record, StaleEpoch, StoreError

from .weather import Weather
from .world import Process, Promise, World

__all__ = ["Storage", "pack_log", "unpack_log"]

TTL = 1e9


def pack_log(log: tuple[str, ...]) -> bytes:
    return ",".join(log).encode()


def unpack_log(snapshot: bytes) -> tuple[str, ...]:
    return tuple(snapshot.decode().split(",")) if snapshot else ()


class Storage:
    """Linearizable: each request takes effect at one instant, or never, or (a repeated one) twice."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self._weather = weather
        self.memory = MemoryStore(lambda: world.now)
        self.claims = 0
        self.stale = 0
        """Writes that it had to refuse."""

    def now(self, operation: Coroutine[Any, Any, Any]) -> Any:
        """Do it this instant; the answer, or the `StoreError`."""
        try:
            operation.send(None)
        except StopIteration as done:
            return done.value
        except StoreError as error:
            return error
        raise AssertionError("MemoryStore never waits")

    def _request(self, process: Process, method: str, address: Address, arguments: dict[str, Any]) -> Promise:
        promise = Promise()
        world, weather = self._world, self._weather
        lost = weather.store_lost

        def apply(repeated: bool = False) -> None:
            if world.now < weather.frozen_until:
                world.after(weather.frozen_until - world.now + 0.001 * world.random.random(), apply, repeated)
                return
            self.claims += method == "claim"
            answer = self.now(getattr(self.memory, method)(address, **arguments))
            self.stale += isinstance(answer, StaleEpoch)
            world.note("store", "%s %s %s -> %s", method, address.id, _brief(arguments), _brief_answer(answer))
            # What the repetition was answered a store's client keeps to itself: of one call there is one answer.
            if not repeated and not (lost and world.chance(lost)):
                world.after(weather.store_delay(), process.post, promise.resolve, answer)
                if weather.store_twice and world.chance(weather.store_twice):
                    world.after(weather.store_delay(), apply, True)

        if not (lost and world.chance(lost)):
            world.after(weather.store_delay(), apply)
        return promise

    def create(self, process: Process, address: Address, owner: str) -> Promise:
        return self._request(process, "create", address, {"tenant": "t", "owner": owner, "snapshot": b"", "ttl": TTL})

    def claim(self, process: Process, address: Address, owner: str) -> Promise:
        return self._request(process, "claim", address, {"owner": owner})

    def load(self, process: Process, address: Address) -> Promise:
        return self._request(process, "load", address, {})

    def save(self, process: Process, address: Address, epoch: int, version: int, log: tuple[str, ...]) -> Promise:
        arguments = {"epoch": epoch, "version": version, "snapshot": pack_log(log), "ttl": TTL}
        return self._request(process, "save", address, arguments)

    def log_of(self, address: Address) -> tuple[str, ...]:
        """For the checker: what is stored."""
        record: Record | None = self.now(self.memory.load(address))
        return unpack_log(record.snapshot) if record is not None else ()


def _brief(arguments: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={_brief_log(value) if isinstance(value, bytes) else value}"
        for name, value in arguments.items()
        if name not in ("ttl", "tenant")
    )


def _brief_log(snapshot: bytes) -> str:
    log = unpack_log(snapshot)
    return f"{len(log)}:..{log[-1]}" if log else "empty"


def _brief_answer(answer: Any) -> str:
    if isinstance(answer, Record):
        return f"epoch={answer.epoch} version={answer.version} owner={answer.owner}"
    return type(answer).__name__ if isinstance(answer, StoreError) else "ok"
