"""`understudy bench stores`: what each operation of a store costs, beside the client library that it is made of.

It is judged by the last of its `RAW_CLIENTS`. DynamoDB has two: one that fences nothing, as those of the others, and
one that does; `raw_dynamodb.py` says why. Both figures are in the report.
"""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from ..stores import Address, SessionStore, StoreURLError, open_store
from .asgi import Refused
from .clients import HandshakeClient, PreparedCall
from .local_stores import LocalStore, local_stores
from .measure import Effort, Progress, Side, in_flight, interleave
from .raw_clients import RAW_CLIENTS, RawClient
from .report import Comparison, Report, Scenario, Series, Target, ratio
from .servers import ARGUMENTS, TOOL, ten_tools
from .sides import understudy_app

__all__ = ["bench_stores"]

AT_ONCE = (1, 64, 256)
JUDGED = 64
"""In flight: one alone waits for the network and the disk, many for whoever has the most to do for each."""
TARGET = Target("at least", 0.7)
SNAPSHOT = 2048
"""Bytes."""
TTL = 3600.0

Operation = Callable[[int], Awaitable[object]]
"""Of the record or key of that number."""

_Measurement = tuple[list[Side], list[list[float]]]
"""The store's side first, then the raw clients'; and their seconds."""


async def bench_stores(effort: Effort, progress: Progress, urls: Sequence[str] = ()) -> Report:
    """Measure the stores at `urls`, or without any each that this machine has a server for.

    Raises:
        StoreURLError: A URL that cannot be understood, or of a kind that has no raw client here.
        StoreError: A store cannot be opened.
    """
    for url in urls:
        if url.partition(":")[0] not in RAW_CLIENTS:
            known = ", ".join(f"{scheme}://" for scheme in sorted(RAW_CLIENTS))
            raise StoreURLError(f"bench stores has no raw client to measure this store beside; it knows {known}")
    scenarios: list[Scenario] = []
    async with AsyncExitStack() as stack:
        named = [LocalStore(url.partition(":")[0], url) for url in urls]
        # What is there already stays: a collection before each slice need not walk it, which would take longer than
        # the slice.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        for each in named or await local_stores(stack, progress):
            scenarios += await _bench_one(each, effort, progress)
    return Report("stores", tuple(scenarios), effort.quick)


async def _bench_one(measured: LocalStore, effort: Effort, progress: Progress) -> list[Scenario]:
    scheme = measured.url.partition(":")[0]
    in_flight_at = AT_ONCE[:2] if effort.quick else AT_ONCE
    most = max(in_flight_at)
    snapshot = random.Random(6).randbytes(SNAPSHOT)
    scenarios: list[Scenario] = []
    async with AsyncExitStack() as stack:
        raws = {
            title: await stack.enter_async_context(opening(measured.url, most, snapshot))
            for title, opening in RAW_CLIENTS[scheme].items()
        }
        records = await stack.enter_async_context(_records(measured.url, most, snapshot))
        for at_once in in_flight_at:
            tell = partial(_tell, progress, f"{scheme}, {at_once} in flight")
            measurements: list[_Measurement] = []
            for name in ("claim", "save", "load", "touch"):
                operations = _operations(name, records, list(raws.values()), snapshot)
                names = (name, *(f"{name}, {raw.name}" for raw in raws.values()))
                sides = [
                    Side(who, _run(operation, at_once), at_once, "a second")
                    for who, operation in zip(names, operations, strict=True)
                ]
                measurements.append((sides, await interleave(sides, effort, partial(tell, name))))
            measurements.append(
                await _woken(measured.url, list(raws.values()), at_once, effort, partial(tell, "rehydrate"))
            )
            scenarios.append(
                _scenario(f"{measured.name}: {at_once} in flight", measurements, list(raws), judged=at_once == JUDGED)
            )
    return scenarios


def _tell(progress: Progress, title: str, name: str, said: str) -> None:
    progress(f"{title}, {name}: {said}")


def _scenario(title: str, measurements: list[_Measurement], raws: list[str], *, judged: bool) -> Scenario:
    series: list[Series] = []
    comparisons: list[Comparison] = []
    for sides, seconds in measurements:
        ours, *others = (
            Series(side.name, side.unit, tuple(1 / each for each in figures))
            for side, figures in zip(sides, seconds, strict=True)
        )
        series += [ours, *others]
        for raw, theirs in zip(raws, others, strict=True):
            target = TARGET if judged and raw == raws[-1] else None
            comparisons.append(ratio(f"{ours.name}: store / {raw}", ours, theirs, target))
    return Scenario(title, tuple(series), tuple(comparisons))


def _run(operation: Operation, at_once: int) -> Callable[[int], Awaitable[None]]:
    """Each of `at_once` workers has a record of its own, as each session has one writer."""
    return in_flight([lambda at=at: operation(at) for at in range(at_once)])


class _Records:
    """Records of one store, and what their writer has to know to write them."""

    def __init__(self, store: SessionStore, snapshot: bytes) -> None:
        self.store = store
        self.addresses: list[Address] = []
        self._epochs: list[int] = []
        self._versions: list[int] = []
        self._snapshot = snapshot

    async def create(self) -> None:
        """One more."""
        address = Address.new("session")
        await self.store.create(address, tenant="bench", owner="bench", snapshot=self._snapshot, ttl=TTL)
        self.addresses.append(address)
        self._epochs.append(1)
        self._versions.append(1)

    async def claim(self, at: int) -> bytes:
        record = await self.store.claim(self.addresses[at], owner="bench")
        self._epochs[at] = record.epoch
        return record.snapshot

    async def load(self, at: int) -> bytes | None:
        record = await self.store.load(self.addresses[at])
        return None if record is None else record.snapshot

    async def save(self, at: int) -> None:
        version = self._versions[at] + 1
        await self.store.save(
            self.addresses[at], epoch=self._epochs[at], version=version, snapshot=self._snapshot, ttl=TTL
        )
        self._versions[at] = version

    async def touch(self, at: int) -> None:
        await self.store.touch(self.addresses[at], epoch=self._epochs[at], ttl=TTL)


@asynccontextmanager
async def _records(url: str, number: int, snapshot: bytes) -> AsyncGenerator[_Records]:
    store = await open_store(url)
    records = _Records(store, snapshot)
    try:
        await in_flight([records.create] * number)(number)
        yield records
    finally:
        await in_flight([partial(store.delete, address) for address in records.addresses])(len(records.addresses))
        await store.aclose()


def _operations(name: str, records: _Records, raws: list[RawClient], snapshot: bytes) -> list[Operation]:
    """One operation of the store, and of each raw client."""

    async def loaded(at: int) -> None:
        if await records.load(at) != snapshot:
            raise Refused("the store has loaded something else than was saved")

    async def claimed(at: int) -> None:
        if await records.claim(at) != snapshot:
            raise Refused("the store has claimed something else than was saved")

    def saved(raw: RawClient) -> Operation:
        return lambda at: raw.save(at, snapshot)

    of_each: dict[str, list[Operation]] = {
        "claim": [claimed, *(raw.claim for raw in raws)],
        "save": [records.save, *(saved(raw) for raw in raws)],
        "load": [loaded, *(raw.load for raw in raws)],
        "touch": [records.touch, *(raw.touch for raw in raws)],
    }
    return of_each[name]


async def _woken(url: str, raws: list[RawClient], at_once: int, effort: Effort, progress: Progress) -> _Measurement:
    """A sleeping session's first call, in a node on this store; and in one on memory, after a raw client's claim.

    The call leaves the state as it is, so the claim is all that the store is asked for.
    """
    async with _sleepers(url, at_once) as ours, _sleepers("memory://", at_once) as theirs:

        def after_claim(raw: RawClient) -> Operation:
            async def claim_and_wake(at: int) -> None:
                await raw.claim(at)
                await theirs.wake(at)

            return claim_and_wake

        sides = [
            Side("rehydrate", _run(ours.wake, at_once), at_once, "a second"),
            *(
                Side(f"rehydrate, {raw.name} and memory", _run(after_claim(raw), at_once), at_once, "a second")
                for raw in raws
            ),
        ]
        return sides, await interleave(sides, effort, progress)


class _Sleepers:
    """More sessions than may be in memory, called in turn: whichever is called is asleep."""

    def __init__(self, clients: list[HandshakeClient], at_once: int) -> None:
        self._shares = [clients[at::at_once] for at in range(at_once)]
        self._turns = [0] * at_once
        self._call = PreparedCall(TOOL, ARGUMENTS)

    async def wake(self, at: int) -> None:
        """Call the next of one worker's sessions."""
        share = self._shares[at]
        self._turns[at] = turn = (self._turns[at] + 1) % len(share)
        await share[turn].call(self._call)


@asynccontextmanager
async def _sleepers(url: str, at_once: int) -> AsyncGenerator[_Sleepers]:
    # A node lets an eighth of its sessions leave memory at once, or 64.
    room = max(2 * at_once, 0 if at_once <= 64 else 8 * at_once)
    async with understudy_app(ten_tools(), store=url, max_sessions=room, session_ttl=TTL) as app:
        clients: list[HandshakeClient] = []

        async def open_one() -> None:
            clients.append(await HandshakeClient.open(app))

        workers = min(at_once, 32)
        await in_flight([open_one] * workers)(room + 2 * at_once)
        try:
            yield _Sleepers(clients, at_once)
        finally:
            await in_flight([lambda: clients.pop().close()] * workers)(len(clients) // workers * workers)
