"""What a tenant has in the store: counted there, kept up to date by all nodes, and counted again at the limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.nodes import ACME, Node, Shared, node, nodes
from understudy.actors.packing import pack
from understudy.actors.session import TenantContext
from understudy.actors.session.errors import LimitExceeded
from understudy.actors.testing import ManualClock
from understudy.runtime.limits import CountersUnavailable, Limits, MemoryCounters
from understudy.runtime.limits.stock import COUNT_AGAIN
from understudy.runtime.limits.tally import Tally
from understudy.stores import Address, MemoryStore, StoreUnavailable


async def keep(store: MemoryStore, tenant: str = "acme", snapshot: bytes = b"snapshot") -> Address:
    """A session that is in the store."""
    address = Address.new("session")
    await store.create(address, tenant=tenant, owner="n", snapshot=snapshot, ttl=3600.0)
    return address


async def may_open(it: Node, tenant: TenantContext = ACME) -> bool:
    opening = it.limiter.opening(tenant)
    assert opening is not None
    try:
        await opening
    except LimitExceeded:
        return False
    return True


async def test_sessions_that_are_there_count_and_those_of_others_do_not() -> None:
    clock, store = ManualClock(), MemoryStore()
    for tenant in ("acme", "acme", "globex"):
        await keep(store, tenant)
    async with node("a.1", Limits(sessions=3), MemoryCounters(), clock, store=store) as it:
        assert [await may_open(it) for _ in range(2)] == [True, False]
        assert await may_open(it, TenantContext("globex", "bob"))


async def test_all_nodes_together_open_no_more_than_there_may_be() -> None:
    clock, store = ManualClock(), MemoryStore()
    counters = Shared(MemoryCounters())
    async with nodes(3, Limits(sessions=7), lambda number: counters, clock, store=store) as members:
        opened = 0
        for turn in range(12):
            if await may_open(members[turn % 3]):
                opened += 1
                await keep(store)
        assert opened == 7
        # One that ends at one node makes room at another, once it is told.
        members[0].limiter.usage.drop_session("acme")
        await clock.advance(2.0)
        assert [await may_open(members[1]) for _ in range(2)] == [True, False]


async def test_those_who_open_at_once_are_entered_together() -> None:
    clock, store = ManualClock(), MemoryStore()
    counters = Shared(MemoryCounters())
    async with nodes(3, Limits(sessions=40), lambda number: counters, clock, store=store) as members:
        assert await may_open(members[0])
        before = counters.changes
        opened = await asyncio.gather(*(may_open(members[number % 3]) for number in range(120)))
        assert sum(opened) == 39
        # Each node with all of its own once, then a look whether it is time to count again, and once more.
        assert counters.changes - before <= 12


async def test_each_of_those_who_open_at_once_is_held_to_his_own_limit() -> None:
    clock, store = ManualClock(), MemoryStore()
    plans = {"pro": Limits(sessions=6), None: Limits(sessions=3)}
    rich, poor = TenantContext("acme", "ada", plan="pro"), TenantContext("acme", "bob")
    async with node("a.1", plans, Shared(MemoryCounters()), clock, store=store) as it:
        assert await may_open(it, rich)
        asking = [may_open(it, tenant) for tenant in (rich, poor, poor, rich, poor, rich, rich)]
        assert await asyncio.gather(*asking) == [True, True, False, True, False, True, True]


async def test_who_leaves_before_he_was_told_that_he_may_open_takes_nothing() -> None:
    clock, store = ManualClock(), MemoryStore()
    counters = Shared(MemoryCounters())
    async with node("a.1", Limits(sessions=3), counters, clock, store=store) as it:
        assert await may_open(it)
        asked = asyncio.Event()

        async def slowly() -> None:
            asked.set()
            await asyncio.sleep(0)

        counters.broken = slowly
        async with asyncio.TaskGroup() as group:
            impatient = [group.create_task(may_open(it)) for _ in range(2)]
            await asked.wait()
            for task in impatient:
                task.cancel()
        counters.broken = None
        assert [await may_open(it) for _ in range(3)] == [True, True, False]


async def test_what_was_opened_while_the_counters_were_away_counts_when_they_are_back() -> None:
    clock, store = ManualClock(), MemoryStore()
    counters = Shared(MemoryCounters())
    async with nodes(2, Limits(sessions=4), lambda number: counters, clock, store=store) as (one, other):
        for member in (one, other):
            assert await may_open(member)
            await keep(store)

        async def away() -> None:
            raise CountersUnavailable("they are away")

        counters.broken = away
        # Alone it goes on from what it saw last: the one that the other opened it has not heard of.
        assert [await may_open(one) for _ in range(4)] == [True, True, True, False]
        for _ in range(3):
            await keep(store)
        counters.broken = None
        await clock.advance(8.0)
        assert not one.limiter.stats()["limits_counters_away"]
        assert not await may_open(other)


async def test_what_ends_unseen_is_noticed_when_somebody_would_be_refused() -> None:
    clock, store = ManualClock(), MemoryStore()
    async with node("a.1", Limits(sessions=2), MemoryCounters(), clock, store=store) as it:
        kept = []
        for _ in range(2):
            assert await may_open(it)
            kept.append(await keep(store))
        assert not await may_open(it)
        await store.delete(kept[0])
        assert not await may_open(it)
        await clock.advance(COUNT_AGAIN + 1.0)
        assert [await may_open(it) for _ in range(2)] == [True, False]


async def test_what_has_ended_is_not_taken_away_twice_by_a_census_and_by_who_saw_it_end() -> None:
    clock, store = ManualClock(), MemoryStore()
    async with node("a.1", Limits(sessions=3), MemoryCounters(), clock, store=store) as it:
        kept = []
        for _ in range(3):
            assert await may_open(it)
            kept.append(await keep(store))
        await clock.advance(COUNT_AGAIN + 1.0)
        await store.delete(kept[0])
        it.limiter.usage.drop_session("acme")
        it.limiter.usage.of("acme").sessions.count_soon()
        await clock.advance(3.0)
        assert [await may_open(it) for _ in range(2)] == [True, False]


async def test_an_opening_that_failed_gives_its_place_back() -> None:
    clock, store = ManualClock(), MemoryStore()
    async with node("a.1", Limits(sessions=1), MemoryCounters(), clock, store=store) as it:
        assert await may_open(it)
        it.limiter.not_opened(ACME)
        assert await may_open(it)
        assert not await may_open(it)


async def test_a_store_that_cannot_be_counted_lets_nobody_in_unchecked() -> None:
    class Away(MemoryStore):
        async def list(self, **options: Any) -> Any:
            raise StoreUnavailable("away")

    clock = ManualClock()
    async with node("a.1", Limits(sessions=5), MemoryCounters(), clock, store=Away()) as it:
        assert not await may_open(it)


async def test_a_tenants_bytes_are_what_its_snapshots_take() -> None:
    clock, store = ManualClock(), MemoryStore()
    for _ in range(3):
        await keep(store, snapshot=b"x" * 1000)
    async with node("a.1", Limits(state_bytes=4000), MemoryCounters(), clock, store=store) as it:
        await it.limiter.usage.of("acme").state.learn()
        assert it.allowance().max_state(100, 10_000) == 1100
        it.limiter.state_changed("acme", 900)
        assert it.allowance().max_state(100, 10_000) == 200
        it.limiter.state_changed("acme", 900)
        # What is there may stay.
        assert it.allowance().max_state(100, 10_000) == 100
        it.limiter.state_changed("acme", -1000)
        assert it.allowance().max_state(100, 10_000) == 300
        assert it.allowance().max_state(100, 50) == 50


tallies = st.builds(Tally, st.integers(0, 2**40), st.integers(0, 2**40), st.floats(0, 2e9))


@given(tallies)
def test_a_tally_comes_back(tally: Tally) -> None:
    assert Tally.unpack(tally.pack()) == tally


@pytest.mark.parametrize("packed", [b"", b"\xc1", pack([2, 1, 1, 1.0]), pack([1, "1", 1, 1.0]), pack([1, 1, 1])])
def test_what_is_no_tally_is_counted_anew(packed: bytes) -> None:
    assert Tally.unpack(packed) is None


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.booleans())
def test_a_census_never_forgets_what_came_while_it_was_taken(found: int, before: int, came: int, seen: bool) -> None:
    """Whether the census has seen what came meanwhile or not, the tally is not too low."""
    then = Tally(before, 100, 0.0)
    now = Tally(before, 100, 0.0)
    for _ in range(came):
        now.add(1)
    in_store = found + came
    counted = in_store if seen else found
    assert Tally.after_census(counted, then, now, 1.0).count >= in_store


def test_a_tally_of_this_version_is_read_for_ever() -> None:
    golden = bytes.fromhex("94 01 03 05 cb 3ff8000000000000")
    assert Tally.unpack(golden) == Tally(3, 5, 1.5)
    assert Tally(3, 5, 1.5).pack() == golden
