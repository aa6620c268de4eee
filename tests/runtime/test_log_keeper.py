"""What leaves the event log leaves it in batches, behind everybody's back, and in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from understudy.actors.task_owner import TaskOwner
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.streams import log_keeper
from understudy.runtime.streams.log_keeper import LogKeeper
from understudy.runtime.streams.stream_log import StreamLog
from understudy.stores import Address, FaultyStore, MemoryStore


class Kept:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = FaultyStore(MemoryStore(clock=self.clock.monotonic), seed=1, sleep=self.clock.sleep)
        self.log: Any = self.store.events
        self.writer = StreamLog(self.log, writer=lambda: "w", clock=self.clock)
        self.keeper = LogKeeper(self.writer)

    async def streams(self, address: Address, count: int) -> list[str]:
        names = [f"s.{number}" for number in range(count)]
        for name in names:
            await self.log.append(address, name, 1, [b"{}"], head=b"", writer="w")
        return names

    async def left(self, address: Address, names: list[str]) -> int:
        return sum([await self.log.read(address, name) is not None for name in names])

    @property
    def calls(self) -> int:
        return int(self.store.stats()["calls"])


@pytest.fixture
async def kept() -> AsyncIterator[Kept]:
    kept = Kept()
    async with kept.writer:
        yield kept


async def test_streams_are_dropped_together(kept: Kept) -> None:
    address = Address.new("session")
    names = await kept.streams(address, 100)
    calls = kept.calls
    for name in names:
        kept.keeper.drop(address, name)
    assert kept.keeper.is_going(address, names[0])
    await settle()
    assert kept.calls == calls, "not at once"
    await kept.clock.advance(log_keeper.COLLECT)
    assert kept.calls == calls + 1
    assert await kept.left(address, names) == 0
    assert not kept.keeper.is_going(address, names[0])
    assert kept.clock.timers == 0, "idle-is-free"


async def test_a_session_that_has_ended_leaves_nothing_at_once(kept: Kept) -> None:
    address = Address.new("session")
    names = await kept.streams(address, 3)
    kept.keeper.drop_all(address)
    await settle()
    assert await kept.left(address, names) == 0


async def test_a_drop_that_failed_is_tried_again(kept: Kept) -> None:
    address = Address.new("session")
    names = await kept.streams(address, 3)
    kept.store.fail_next("events.drop")
    for name in names:
        kept.keeper.drop(address, name)
    await kept.clock.advance(log_keeper.COLLECT)
    assert await kept.left(address, names) == 3
    await kept.clock.advance(log_keeper.RETRY_AFTER + log_keeper.COLLECT)
    assert await kept.left(address, names) == 0


async def test_what_waits_to_be_dropped_is_bounded(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_keeper, "MAX_PENDING", 10)
    address = Address.new("session")
    for number in range(50):
        kept.keeper.drop(address, f"s.{number}")
    assert kept.keeper.stats()["streams_log_drops_waiting"] == 10


async def test_what_is_too_old_is_swept(kept: Kept) -> None:
    address = Address.new("session")
    await kept.streams(address, 5)
    kept.writer.spawn(kept.keeper.expire_forever())
    await kept.clock.advance(kept.log.bounds.max_age - 1)
    assert kept.keeper.expired == 0
    kept.store.fail_next("events.expire")
    await kept.clock.advance(2 * log_keeper.EXPIRE_EVERY + 2)
    assert kept.keeper.expired == 5


async def test_a_node_that_leaves_waits_no_longer_than_it_said_however_much_is_to_go(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_keeper, "BATCH", 1)
    inner = kept.log.inner

    class Slow:
        async def drop(self, streams: Any) -> None:
            await kept.clock.sleep(3.0)
            await inner.drop(streams)

    monkeypatch.setattr(kept.writer, "log", Slow())
    address = Address.new("session")
    for name in await kept.streams(address, 9):
        kept.keeper.drop(address, name)
    async with TaskOwner() as tasks:
        flushing = tasks.spawn(kept.keeper.flush(4.0))
        for _ in range(4):
            assert not flushing.done()
            await kept.clock.advance(1.0)
        await settle()
        assert flushing.done()


async def test_a_log_that_raises_anything_costs_no_more_than_what_stays_in_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, inner = Address.new("session"), kept.log.inner

    class Buggy:
        broken = True

        def __getattr__(self, name: str) -> Any:
            if self.broken:
                raise RuntimeError(f"a bug in {name}")
            return getattr(inner, name)

    buggy = Buggy()
    monkeypatch.setattr(kept.writer, "log", buggy)
    kept.writer.spawn(kept.keeper.expire_forever())
    names = await kept.streams(address, 2)
    for name in names:
        kept.keeper.drop(address, name)
    await kept.clock.advance(log_keeper.EXPIRE_EVERY)
    await kept.keeper.flush(1.0)
    assert kept.keeper.failed >= 3, "a drop, a sweep and the last attempt"
    buggy.broken = False
    await kept.clock.advance(log_keeper.RETRY_AFTER)
    assert await kept.left(address, names) == 0
