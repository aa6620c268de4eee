"""`FaultyStore`: any store, with faults on demand. A test tool for what is built on a store."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Literal, TypeVar, get_args

from .address import Address
from .errors import StoreError, StoreUnavailable
from .event_log import EventLog, event_log_of
from .faulty_events import FaultyEventLog
from .record import Page, Record
from .store import SessionStore

__all__ = ["Fault", "Faults", "FaultyStore", "Operation"]

T = TypeVar("T")

Operation = Literal[
    "create",
    "claim",
    "load",
    "save",
    "touch",
    "delete",
    "list",
    "expire",
    "ping",
    "events.append",
    "events.read",
    "events.drop",
    "events.drop_all",
    "events.expire",
]
"""A method of a store, or of its event log."""
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

Fault = Literal["refuse", "lose", "hang", "hang_after", "delay"]
"""What can befall a call:

* `refuse`: nothing happened; `StoreUnavailable(outcome_unknown=False)`.
* `lose`: it happened (or was refused) and the answer is lost; `StoreUnavailable(outcome_unknown=True)`.
* `hang`: nothing happens and no answer comes, until cancelled or released; released, it goes on as usual.
* `hang_after`: it happened, and no answer comes until cancelled or released.
* `delay`: it is done and answered late.
"""
FAULTS: tuple[Fault, ...] = get_args(Fault)

HISTORY = 10_000
"""Most injected faults that `FaultyStore.history` keeps."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities from 0 to 1, per call. `delay` may come on top of any other; the others exclude each other."""

    refuse: float = 0.0
    lose: float = 0.0
    hang: float = 0.0
    hang_after: float = 0.0
    delay: float = 0.0
    longest_delay: float = 0.05
    """Seconds; a delay is uniform from 0 to this."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value > 1 and field.name != "longest_delay"):
                raise ValueError(f"Faults.{field.name} is {value}; a probability is 0 to 1, a delay at least 0 seconds")
        if self.refuse + self.lose + self.hang + self.hang_after > 1:
            raise ValueError(
                "Faults: refuse, lose, hang and hang_after exclude each other and must not exceed 1 in sum"
            )

    def draw(self, random: Random) -> tuple[Fault | None, float]:
        """The fate of one call: a fault or None, and seconds of delay. Always takes three numbers from `random`."""
        fate, delayed, share = random.random(), random.random(), random.random()
        delay = share * self.longest_delay if delayed < self.delay else 0.0
        chances: tuple[tuple[Fault, float], ...] = (
            ("refuse", self.refuse),
            ("lose", self.lose),
            ("hang", self.hang),
            ("hang_after", self.hang_after),
        )
        for fault, chance in chances:
            if fate < chance:
                return fault, delay
            fate -= chance
        return None, delay


class FaultyStore:
    """A `SessionStore` around `inner` that fails as a store may fail, and never otherwise.

    Same seed, same faults: the nth call of an operation meets the same fate, whatever other operations do between.
    Faults come from `fail_next`, in order, and when none is waiting, from the probabilities.

    Args:
        inner: The store that does the work. `aclose` closes it.
        seed: Of all random choices.
        faults: Probabilities for every operation that `operations` does not name.
        operations: Probabilities for single operations, in place of `faults`.
        sleep: What a delay awaits; takes seconds.
    """

    def __init__(
        self,
        inner: SessionStore,
        *,
        seed: int,
        faults: Faults | None = None,
        operations: Mapping[Operation, Faults] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.inner = inner
        self.enabled = True
        """While False, every call goes straight to `inner`; scripted faults wait."""
        self.history: deque[tuple[Operation, Fault | StoreError]] = deque(maxlen=HISTORY)
        """The injected faults, oldest first."""
        self._faults = dict.fromkeys(OPERATIONS, faults or Faults()) | dict(operations or {})
        self._random = {operation: Random(f"{seed} {operation}") for operation in OPERATIONS}
        self._scripted: defaultdict[Operation, deque[Fault | StoreError]] = defaultdict(deque)
        self._calls = 0
        self._injected: Counter[str] = Counter()
        self._hanging: set[asyncio.Future[None]] = set()
        self._sleep = sleep
        log = event_log_of(inner)
        self._events = None if log is None else FaultyEventLog(log, self._call)

    @property
    def events(self) -> EventLog | None:
        """The event log of `inner` with faults on its calls too (`events.append` and so on); None if it has none."""
        return self._events

    @property
    def shared(self) -> bool:
        """As `inner` says."""
        return self.inner.shared

    @property
    def hanging(self) -> int:
        """How many calls hang now."""
        return len(self._hanging)

    def fail_next(self, operation: Operation, fault: Fault | StoreError = "refuse", *, times: int = 1) -> None:
        """Let `fault` befall the next `times` calls of `operation`, after those already scripted for it.

        An error is raised as it is, and nothing happens in the store.

        Raises:
            ValueError: No such operation or fault.
        """
        if operation not in OPERATIONS:
            raise ValueError(f"no store operation {operation!r}; one of {', '.join(OPERATIONS)}")
        if not isinstance(fault, StoreError) and fault not in FAULTS:
            raise ValueError(f"no fault {fault!r}; one of {', '.join(FAULTS)}, or a StoreError")
        for _ in range(times):
            self._scripted[operation].append(fault)

    def release(self) -> int:
        """Let every hanging call go on; how many there were."""
        released = len(self._hanging)
        for hanging in self._hanging:
            if not hanging.done():
                hanging.set_result(None)
        self._hanging.clear()
        return released

    def stats(self) -> dict[str, float]:
        """Calls, calls hanging now, and how often each fault was injected (`error`: a scripted error)."""
        injected = {name: float(self._injected[name]) for name in (*FAULTS, "error")}
        return {"calls": self._calls, "hanging": len(self._hanging)} | injected

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`."""
        return await self._call(
            "create", lambda: self.inner.create(address, tenant=tenant, owner=owner, snapshot=snapshot, ttl=ttl)
        )

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`."""
        return await self._call("claim", lambda: self.inner.claim(address, owner=owner))

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        return await self._call("load", lambda: self.inner.load(address))

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`."""
        await self._call(
            "save", lambda: self.inner.save(address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)
        )

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        await self._call("touch", lambda: self.inner.touch(address, epoch=epoch, ttl=ttl))

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        return await self._call("delete", lambda: self.inner.delete(address, epoch=epoch))

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`."""
        return await self._call("list", lambda: self.inner.list(tenant=tenant, cursor=cursor, limit=limit))

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`."""
        return await self._call("expire", lambda: self.inner.expire(limit=limit))

    async def ping(self) -> None:
        """See `SessionStore.ping`."""
        await self._call("ping", self.inner.ping)

    async def aclose(self) -> None:
        """Release what hangs and close `inner`. Never fails on purpose."""
        self.release()
        await self.inner.aclose()

    async def _call(self, operation: Operation, call: Callable[[], Awaitable[T]]) -> T:
        self._calls += 1
        if not self.enabled:
            return await call()
        fault, delay = self._fate(operation)
        if delay:
            await self._sleep(delay)
        if isinstance(fault, StoreError):
            raise fault
        if fault == "refuse":
            raise StoreUnavailable(f"injected fault: {operation} was not done", outcome_unknown=False)
        if fault == "lose":
            await self._done_in_silence(call)
            raise StoreUnavailable(f"injected fault: the answer to {operation} was lost", outcome_unknown=True)
        if fault == "hang":
            await self._hang()
        result = await call()
        if fault == "hang_after":
            await self._hang()
        return result

    def _fate(self, operation: Operation) -> tuple[Fault | StoreError | None, float]:
        faults = self._faults[operation]
        fault, delay = faults.draw(self._random[operation])
        if self._scripted[operation]:
            scripted = self._scripted[operation].popleft()
            if scripted == "delay":
                fault, delay = None, faults.longest_delay
            else:
                fault = scripted
        if delay:
            self._note(operation, "delay")
        if fault is not None:
            self._note(operation, fault)
        return fault, delay

    def _note(self, operation: Operation, fault: Fault | StoreError) -> None:
        self.history.append((operation, fault))
        self._injected["error" if isinstance(fault, StoreError) else fault] += 1

    async def _done_in_silence(self, call: Callable[[], Awaitable[object]]) -> None:
        with contextlib.suppress(StoreError):  # a refusal is an answer like any other: lost
            await call()

    async def _hang(self) -> None:
        hanging = asyncio.get_running_loop().create_future()
        self._hanging.add(hanging)
        try:
            await hanging
        finally:
            self._hanging.discard(hanging)
