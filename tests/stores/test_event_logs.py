"""The event logs in memory and in SQLite: the contract, and what is their own."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from understudy.stores import (
    Address,
    EventLogBounds,
    FaultyStore,
    LoggedStream,
    MemoryStore,
    SessionStore,
    SQLiteStore,
    StoreError,
    StoreUnavailable,
    StreamTaken,
    event_log_of,
)
from understudy.stores.event_log import STREAM_OVERHEAD
from understudy.stores.memory_events import MemoryEventLog
from understudy.stores.testing import EventLogContract, ManualTime


class TestMemoryEventLogKeepsTheContract(EventLogContract):
    async def open_store(self, clock: ManualTime) -> SessionStore:
        return MemoryStore(clock, event_bounds=self.bounds)


class TestSQLiteEventLogKeepsTheContract(EventLogContract):
    path: Path

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.db"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await SQLiteStore.open(self.path, clock=clock, event_bounds=self.bounds)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)


class TestFaultyEventLogWithoutFaultsKeepsTheContract(EventLogContract):
    async def open_store(self, clock: ManualTime) -> SessionStore:
        return FaultyStore(MemoryStore(clock, event_bounds=self.bounds), seed=1)


A = Address("session", "a")


async def test_the_memory_log_keeps_the_bytes_that_it_is_given() -> None:
    log = MemoryStore(ManualTime()).events
    event = bytes(range(200))
    await log.append(A, "stream", 1, [event], head=b"", writer="w")
    logged = await log.read(A, "stream")
    assert logged is not None
    assert logged.events[0] is event


async def test_the_memory_log_counts_its_bytes_through_every_change() -> None:
    clock = ManualTime()
    log = MemoryStore(clock, event_bounds=EventLogBounds(max_events=2, max_bytes=10, max_age=10)).events
    for first, event in enumerate((b"123", b"4567", b"89", b"x" * 20), 1):
        await log.append(A, "stream", first, [event], head=b"head", writer="w")
    assert log.stats()["bytes"] == 20 + 4 + STREAM_OVERHEAD
    assert log.stats()["trimmed_events_total"] == 3
    await log.append(Address("session", "b"), "stream", 1, [b"1"], head=b"", writer="w")
    await log.drop([(A, "stream")])
    assert log.stats()["bytes"] == 1 + STREAM_OVERHEAD
    clock.advance(10)
    assert await log.expire() == 1
    assert (log.stats()["bytes"], log.stats()["streams"]) == (0, 0)


@pytest.mark.parametrize("bound", ["max_events", "max_bytes", "max_age", "max_total_bytes"])
def test_a_bound_of_nothing_is_refused(bound: str) -> None:
    with pytest.raises(ValueError, match=bound):
        EventLogBounds(**{bound: 0})


def test_a_store_without_an_event_log_has_none() -> None:
    assert event_log_of(object()) is None


async def test_appends_of_many_streams_and_saves_share_commits(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "sessions.db")
    addresses = [Address.new("session") for _ in range(64)]
    before = store.stats()["write_commits"]
    await asyncio.gather(
        *(store.events.append(address, "stream", 1, [b"one"], head=b"", writer="w") for address in addresses),
        *(store.create(address, tenant="", owner="", snapshot=b"", ttl=60.0) for address in addresses),
    )
    assert store.stats()["write_commits"] - before <= 4
    await store.aclose()


async def test_a_refused_append_takes_no_neighbour_of_its_commit_along(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "sessions.db")
    log = store.events
    await log.append(A, "stream", 1, [b"one"], head=b"", writer="w")
    others = [Address.new("session") for _ in range(20)]
    outcomes = await asyncio.gather(
        *(log.append(address, "stream", 1, [b"one"], head=b"", writer="w") for address in others[:10]),
        log.append(A, "stream", 1, [b"x", b"y"], head=b"", writer="other"),
        log.append(Address("session", "c"), "stream", 1, ["no bytes"], head=b"", writer="w"),  # type: ignore[list-item]
        *(log.append(address, "stream", 1, [b"one"], head=b"", writer="w") for address in others[10:]),
        return_exceptions=True,
    )
    assert next(type(outcome).__name__ for outcome in outcomes if outcome is not None) == "StreamTaken"
    assert sum(outcome is None for outcome in outcomes) == 20
    assert await log.read(Address("session", "c"), "stream") is None
    for address in others:
        assert await log.read(address, "stream") is not None
    await store.aclose()


async def test_the_file_counts_the_bytes_of_all_streams_through_every_change(tmp_path: Path) -> None:
    clock = ManualTime()
    bounds = EventLogBounds(max_events=5, max_bytes=2000, max_age=50, max_total_bytes=20_000)
    path = tmp_path / "sessions.db"
    stores = [await SQLiteStore.open(path, clock=clock, event_bounds=bounds) for _ in range(2)]

    def check() -> None:
        with closing(sqlite3.connect(path)) as connection:
            (total,) = connection.execute("SELECT bytes FROM event_totals").fetchone()
            (streams,) = connection.execute(f"SELECT total(bytes + length(head) + {STREAM_OVERHEAD}) FROM streams")
            (events,) = connection.execute("SELECT total(length(event)) FROM events").fetchone()
            (said,) = connection.execute("SELECT total(bytes) FROM streams").fetchone()
            (orphans,) = connection.execute(
                "SELECT count(*) FROM events WHERE stream NOT IN (SELECT number FROM streams)"
            ).fetchone()
        assert (total, events, orphans) == (streams[0], said, 0)
        assert total <= bounds.max_total_bytes

    addresses = [Address.new("session") for _ in range(30)]
    numbers = dict.fromkeys(addresses, 0)
    for step in range(300):
        address = addresses[step * 7 % 30]
        log = stores[step % 2].events
        logged = await log.read(address, "stream")
        numbers[address] = 0 if logged is None else logged.last
        events = [bytes(step * 37 % 900)] * (step % 4)
        await log.append(address, "stream", numbers[address] + 1, events, head=bytes(step % 9), writer="w")
        if step % 11 == 0:
            await log.drop([(addresses[step % 30], "stream")])
        if step % 13 == 0:
            clock.advance(20)
            await log.expire()
        check()
    clock.advance(1000)
    assert await stores[0].events.expire() > 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT bytes FROM event_totals").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)
    for store in stores:
        await store.aclose()


async def test_a_faulty_log_meets_faults_and_an_append_is_settled_by_repeating_it() -> None:
    store = FaultyStore(MemoryStore(ManualTime()), seed=1)
    log = store.events
    assert log is not None
    store.fail_next("events.append", "lose")
    with pytest.raises(StoreUnavailable) as caught:
        await log.append(A, "stream", 1, [b"one"], head=b"", writer="w")
    assert caught.value.outcome_unknown
    await log.append(A, "stream", 1, [b"one"], head=b"", writer="w")
    assert store.stats()["lose"] == 1
    logged = await log.read(A, "stream")
    assert logged is not None
    assert logged.events == (b"one",)


def test_a_faulty_store_around_one_without_an_event_log_has_none() -> None:
    class Plain:
        shared = False

    assert event_log_of(FaultyStore(Plain(), seed=1)) is None  # type: ignore[arg-type]


class _LetsAnybodyAppend(MemoryEventLog):
    async def append(self, address, stream, first, events, **rest):
        try:
            await super().append(address, stream, first, events, **rest)
        except StreamTaken as taken:
            if not taken.ended:
                await super().append(address, stream, taken.last + 1, events, **rest)


class _AppendsBehindTheEnd(MemoryEventLog):
    async def append(self, address, stream, first, events, **rest):
        entry = self._streams.get((address, stream))
        if entry is not None:
            entry.ended = False
        await super().append(address, stream, first, events, **rest)


class _RefusesARepeat(MemoryEventLog):
    async def append(self, address, stream, first, events, **rest):
        entry = self._streams.get((address, stream))
        if entry is not None and first <= entry.last:
            raise StreamTaken(address, stream, first=first, last=entry.last, ended=entry.ended)
        await super().append(address, stream, first, events, **rest)


class _AcceptsGaps(MemoryEventLog):
    async def append(self, address, stream, first, events, **rest):
        entry = self._streams.get((address, stream))
        if entry is not None and first > entry.last and not entry.ended:
            first = entry.last + 1
        await super().append(address, stream, first, events, **rest)


class _TakesTheLastHead(MemoryEventLog):
    async def append(self, address, stream, first, events, *, head, **rest):
        await super().append(address, stream, first, events, head=head, **rest)
        self._streams[(address, stream)].head = head


class _BeginsAtOne(MemoryEventLog):
    async def append(self, address, stream, first, events, **rest):
        if (address, stream) not in self._streams:
            first = 1
        await super().append(address, stream, first, events, **rest)


class _ReadsOneTooMany(MemoryEventLog):
    async def read(self, address, stream, *, after=0):
        return await super().read(address, stream, after=max(after - 1, 0))


class _HidesWhatIsGone(MemoryEventLog):
    async def read(self, address, stream, *, after=0):
        logged = await super().read(address, stream, after=after)
        return logged and LoggedStream(
            logged.head, logged.first, logged.events, logged.last, after + 1, logged.writer, logged.ended
        )


class _NeverTrims(MemoryEventLog):
    def _trim(self, entry):
        pass


class _ShowsWhatIsTooOld(MemoryEventLog):
    def _live(self, key, now):
        return self._streams.get(key)


class _CountsAgeFromTheBeginning(MemoryEventLog):
    async def append(self, address, stream, first, events, **rest):
        before = self._streams.get((address, stream))
        appended = before.appended if before is not None else None
        await super().append(address, stream, first, events, **rest)
        if appended is not None and self._streams[(address, stream)] is before:
            before.appended = appended


class _DropsTheActor(MemoryEventLog):
    async def drop(self, streams):
        for address, _ in streams:
            await self.drop_all(address)


class _DropsByPrefix(MemoryEventLog):
    async def drop_all(self, address):
        for other in list(self._of_actor):
            if other.id.startswith(address.id):
                await super().drop_all(other)


class _SweepsTheYoung(MemoryEventLog):
    async def expire(self, *, limit=1000):
        await super().expire(limit=limit)
        return await self.drop_all(next(reversed(self._streams))[0]) or 0 if self._streams else 0


class _HasNoTotal(MemoryEventLog):
    async def append(self, address, stream, first, events, **rest):
        self._bytes = 0
        await super().append(address, stream, first, events, **rest)


BROKEN = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and value.__name__.startswith("_") and issubclass(value, MemoryEventLog)
]


@pytest.mark.parametrize("broken", [*BROKEN, MemoryEventLog], ids=lambda log: log.__name__.strip("_"))
async def test_the_suite_finds_a_log_that_breaks_the_contract_and_no_other(broken: type[MemoryEventLog]) -> None:
    class Suite(EventLogContract):
        async def open_store(self, clock: ManualTime) -> SessionStore:
            store = MemoryStore(clock)
            store._events = broken(clock, self.bounds)
            return store

    failure: str | None = None
    for name, test in inspect.getmembers(Suite, inspect.iscoroutinefunction):
        # One fault of one call at a time shows without the large ones.
        if not name.startswith("test_") or len(inspect.signature(test).parameters) > 1:
            continue
        case = Suite()
        case.setup_method()
        try:
            await test(case)
        except (AssertionError, StoreError, ValueError, pytest.fail.Exception):
            failure = name
            break
    assert (failure is not None) == (broken is not MemoryEventLog), failure
