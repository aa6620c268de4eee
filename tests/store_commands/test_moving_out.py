"""`understudy store move`: what sleeps goes to another store while nodes use both; nothing lost, nothing back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from store_commands.conftest import KINDS, run
from understudy.runtime.store_commands.emptying import Emptying, EmptyingError
from understudy.stores import (
    Address,
    MemoryStore,
    Record,
    RecordNotFound,
    StaleEpoch,
    StoreUnavailable,
    open_store,
)
from understudy.stores.moving import MovingStore
from understudy.stores.moving.marks import Tombstone, is_placeholder, placeholder
from understudy.stores.testing import ManualTime


async def fill(url: str, count: int) -> dict[Address, bytes]:
    store = await open_store(url)
    new = {Address.new("session"): b"%d" % number for number in range(count)}
    for address, snapshot in new.items():
        await store.create(address, tenant="t", owner="n", snapshot=snapshot, ttl=3600)
    await store.aclose()
    return new


async def contents(url: str) -> dict[Address, bytes]:
    store = await open_store(url)
    found: dict[Address, bytes] = {}
    for info in (await store.list(limit=1000)).records:
        record = await store.load(info.address)
        assert record is not None
        assert 3000 < record.expires - record.updated <= 3600
        found[info.address] = record.snapshot
    await store.aclose()
    return found


@pytest.mark.parametrize("kinds", [*pairwise(KINDS), (KINDS[-1], KINDS[0])], ids="-".join)
def test_sessions_go_from_any_store_to_any_other(kinds: tuple[str, str], place: Callable[[str], str]) -> None:
    source, target = (place(kind) for kind in kinds)
    for url in (source, target):
        assert run("init", url).exit_code == 0
    # The server that stands in for DynamoDB takes its time.
    count = 4 if "dynamodb" in kinds else 40
    new = asyncio.run(fill(source, count))
    moved = run("move", source, target)
    assert moved.exit_code == 0, moved.output
    assert f"moved {count} sessions, compared byte by byte" in moved.output
    assert asyncio.run(contents(source)) == {}
    assert asyncio.run(contents(target)) == new
    again = run("move", source, target)
    assert (again.exit_code, "moved 0 sessions" in again.output) == (0, True)


@pytest.mark.parametrize("kind", KINDS)
def test_any_store_keeps_a_mark_that_is_told_from_a_session_also_when_it_is_claimed(
    kind: str, place: Callable[[str], str]
) -> None:
    url = place(kind)
    assert run("init", url).exit_code == 0

    async def look() -> None:
        now, address = time.time(), Address.new("session")
        record = Record(address, "t", 7, 1, "n", now, now, now + 60, b"kept" * 1000)
        store: Any = await open_store(url)
        await store.adopt(placeholder(record))
        assert [is_placeholder(info) for info in (await store.list()).records] == [True]
        assert Tombstone.of(record).awaited_by(await store.load(address))
        claimed = await store.claim(address, owner="n")
        assert is_placeholder(claimed)
        assert (claimed.epoch, claimed.version) == (8, 0)
        await store.save(address, epoch=8, version=1, snapshot=record.snapshot, ttl=60)
        assert not is_placeholder(await store.load(address))
        await store.aclose()

    asyncio.run(look())


def test_a_store_is_not_moved_to_itself(place: Callable[[str], str]) -> None:
    url = place("sqlite")
    assert run("init", url).exit_code == 0
    result = run("move", url, url)
    assert (result.exit_code, "to itself" in result.output) == (2, True)


def test_a_target_that_holds_a_copy_is_refused_and_left_as_it_is(place: Callable[[str], str]) -> None:
    source, target = place("sqlite"), place("sqlite")
    for url in (source, target):
        assert run("init", url).exit_code == 0
    new = asyncio.run(fill(source, 3))
    assert run("copy", source, target).exit_code == 0
    result = run("move", source, target)
    assert (result.exit_code, "has copied from this source" in result.output) == (1, True), result.output
    assert asyncio.run(contents(source)) == asyncio.run(contents(target)) == new


class Shaky(MemoryStore):
    """Lets others run in every call, and fails now and then, before a call takes effect or after."""

    shared = True

    def __init__(self, clock: ManualTime, random: Random, identity: str) -> None:
        super().__init__(clock)
        self.random = random
        self.identity = identity

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in ("create", "adopt", "claim", "load", "save", "touch", "delete"):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(0)
            if self.random.random() < 0.01:
                raise StoreUnavailable("lost", outcome_unknown=True, retry_after=0.001)
            answer = await method(*args, **options)
            if self.random.random() < 0.01:
                raise StoreUnavailable("lost", outcome_unknown=True, retry_after=0.001)
            return answer

        return call


@pytest.mark.parametrize("seed", range(6))
async def test_while_nodes_use_them_none_is_lost_none_older_than_acknowledged_and_none_back(seed: int) -> None:
    random, clock = Random(seed), ManualTime()
    former, next = Shaky(clock, random, "former"), Shaky(clock, random, "next")
    counts: dict[Address, int] = {}
    ended: set[Address] = set()
    doubtful: set[Address] = set()
    for _ in range(200):
        address = Address.new("session")
        await MemoryStore.create(former, address, tenant="t", owner="n", snapshot=b"0", ttl=1000)
        counts[address] = 0

    async def node() -> None:
        store = MovingStore(former, next, clock=clock)
        for _ in range(150):
            address = random.choice(list(counts))
            try:
                record = await store.claim(address, owner="n")
                assert int(record.snapshot) >= counts[address], "older than acknowledged"
                count = int(record.snapshot) + 1
                await store.save(
                    address, epoch=record.epoch, version=record.version + 1, snapshot=b"%d" % count, ttl=1000
                )
                counts[address] = max(count, counts[address])
                if random.random() < 0.1:
                    doubtful.add(address)
                    if await store.delete(address, epoch=record.epoch):
                        ended.add(address)
            except RecordNotFound:
                assert address in doubtful, "lost"
            except (StaleEpoch, StoreUnavailable):
                pass

    emptying = Emptying(former, next)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(node())
        while (await emptying.one_pass()).looked:
            pass
    await emptying.tidy()
    assert (await former.list()).records == ()
    for address, count in counts.items():
        record = await MemoryStore.load(next, address)
        if record is None:
            assert address in doubtful
        else:
            assert address not in ended
            assert int(record.snapshot) >= count
    assert len((await next.list(limit=1000)).records) >= 200 - len(doubtful)


async def test_what_moves_that_came_to_nothing_have_left_is_removed() -> None:
    clock = ManualTime()
    former, next = MemoryStore(clock), MemoryStore(clock)
    move = MovingStore(former, next, clock=clock)
    stray, under_way = Address.new("session"), Address.new("session")
    for address in (stray, under_way):
        await former.create(address, tenant="t", owner="n", snapshot=b"", ttl=100)
        record = await former.claim(address, owner="n")
        assert await move.passage._hold_place(record)
    await former.delete(stray)
    assert await Emptying(former, next).tidy() == 1
    assert [info.address for info in (await next.list()).records] == [under_way]


async def test_a_session_that_arrives_as_another_ends_the_move() -> None:
    class Forgetful(MemoryStore):
        async def save(self, address: Address, *, snapshot: bytes, **options: Any) -> None:
            await super().save(address, snapshot=b"", **options)

    former, next = MemoryStore(), Forgetful()
    for _ in range(3):
        await former.create(Address.new("session"), tenant="t", owner="n", snapshot=b"kept", ttl=100)
    with pytest.raises(EmptyingError, match="not at the target as it was"):
        await Emptying(former, next).one_pass()


async def test_a_session_that_the_target_does_not_take_is_named_and_stays() -> None:
    class Narrow(MemoryStore):
        async def adopt(self, record: Record, **options: Any) -> None:
            if len(record.snapshot) > 100:
                raise StoreUnavailable("more than 100 bytes", outcome_unknown=False, retry_after=3600)
            await super().adopt(record, **options)

    former, next = MemoryStore(), Narrow()
    small, large = Address.new("session"), Address.new("session")
    for address, size in ((small, 10), (large, 1000)):
        await former.create(address, tenant="t", owner="n", snapshot=bytes(size), ttl=100)
    with pytest.raises(EmptyingError, match=rf"session {large.id[:8]}\.\.\. cannot .* more than 100 bytes"):
        await Emptying(former, next).one_pass()
    assert await former.load(large) is not None


@pytest.mark.parametrize(("ttl", "whose"), [(3600, "target"), (30, "source")])
async def test_a_clock_that_is_wrong_ends_the_move_by_its_name(ttl: float, whose: str) -> None:
    """A lifetime is moved as what is left of it by the clock here: all would be shorter, or be taken for expired."""
    theirs = ManualTime(time.time() - 60)
    former, next = MemoryStore(theirs), MemoryStore(theirs)
    address = Address.new("session")
    await former.create(address, tenant="t", owner="n", snapshot=b"kept", ttl=ttl)
    with pytest.raises(EmptyingError, match=f"clock .* {whose} differ"):
        await Emptying(former, next).one_pass()
    assert (await former.load(address) or await next.load(address)) is not None


async def test_no_more_sessions_a_second_are_moved_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    former, next = MemoryStore(), MemoryStore()
    for _ in range(30):
        await former.create(Address.new("session"), tenant="t", owner="n", snapshot=b"", ttl=100)
    began = asyncio.get_running_loop().time()
    done = await Emptying(former, next, rate=100).one_pass()
    took = asyncio.get_running_loop().time() - began
    assert done.moved == 30
    # 0.1 s of them may come at once.
    assert took >= 0.19
