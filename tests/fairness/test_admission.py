"""`Admission`: who is let in at once, who waits, who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import pytest
from understudy.runtime import ConfigurationError, TenantContext
from understudy.runtime.fairness import Fairness
from understudy.runtime.fairness.admission import ALONE_AFTER, BURST, LONGEST, PASSES, STRAIGHT, WINDOW, Admission
from understudy.runtime.wire.refusals import Refused

Place = asyncio.Future[None] | None


class Door:
    """An `Admission` whose time and whose passes of the loop the test has in hand."""

    def __init__(self, fairness: Fairness | None = None) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.admission = Admission(fairness or Fairness(), clock=lambda: self.now, call_soon=self.soon.append)

    def enter(self, tenant: str, size: int = 0, plan: str | None = None) -> Place:
        return self.admission.enter(TenantContext(tenant, "p", plan), size)

    def crowd(self, tenant: str, count: int) -> list[asyncio.Future[None]]:
        """Have so many of one tenant's requests waiting, beside another that is known."""
        self.enter("another")
        while self.enter(tenant) is None:
            pass
        return [place for _ in range(count - 1) if (place := self.enter(tenant)) is not None]

    def turn(self) -> int:
        """One pass of the loop; how many callbacks it had."""
        due = list(self.soon)
        self.soon.clear()
        self.now += 0.0001
        for each in due:
            each()
        return len(due)

    def turns(self, calls: int) -> None:
        """The passes in which so many of those who wait are let in."""
        for _ in range(calls * PASSES):
            self.turn()

    def stats(self, name: str) -> float:
        return self.admission.stats()[f"admission_{name}"]


async def test_requests_that_come_one_by_one_never_wait() -> None:
    door = Door()
    for number in range(50):
        assert door.enter(f"t{number % 3}") is None
        door.now += WINDOW
    assert not door.soon


async def test_one_tenant_alone_never_waits() -> None:
    door = Door()
    assert {door.enter("only") for _ in range(1000)} == {None}


async def test_a_second_tenant_makes_a_crowd_of_the_first_wait_and_its_going_ends_that() -> None:
    door = Door()
    door.enter("a")
    door.enter("b")
    places = [door.enter("a") for _ in range(20)]
    assert places.count(None) == BURST - 2
    while door.turn():
        pass
    door.now += ALONE_AFTER
    assert {door.enter("a") for _ in range(100)} == {None}


async def test_while_others_wait_a_quiet_tenant_passes_by_until_it_has_had_as_much_as_they() -> None:
    door = Door()
    door.crowd("loud", 50)
    assert door.enter("quiet") is None
    second = door.enter("quiet")
    assert second is not None
    door.turns(4)
    assert second.done()
    door.turns(4)
    assert door.stats("waiting") > 38
    assert door.enter("quiet") is None


async def test_whoever_passes_by_has_the_loop_for_as_long_as_a_call_takes() -> None:
    door = Door()
    loud = door.crowd("loud", 50)
    door.turns(2)
    before = sum(place.done() for place in loud)
    assert before
    assert door.enter("quiet") is None
    for _ in range(PASSES):
        door.turn()
    assert sum(place.done() for place in loud) == before
    door.turns(1)
    assert sum(place.done() for place in loud) == before + 1


async def test_who_calls_without_a_pause_gets_no_more_than_those_who_wait() -> None:
    door = Door()
    loud = door.crowd("loud", 200)
    quick = 0
    place: Place = None
    for _ in range(60 * PASSES):
        if place is None or place.done():
            place = door.enter("quick")
            quick += 1
        door.turn()
    assert quick == pytest.approx(sum(place.done() for place in loud), abs=2)


async def test_a_crowd_of_newcomers_lets_those_who_wait_in_too() -> None:
    door = Door()
    loud = door.crowd("loud", 50)
    for number in range(40 * STRAIGHT):
        door.enter(f"new-{number}")
        if number % 2:
            door.turn()
    # Every so often it is their turn, beside all the others that wait by now.
    for _ in range(PASSES * 20 * STRAIGHT):
        door.turn()
    assert sum(place.done() for place in loud) >= 2


async def test_no_more_than_a_few_pass_by_in_one_pass() -> None:
    door = Door()
    door.crowd("loud", 10)
    places = [door.enter(f"quiet-{number}") for number in range(2 * STRAIGHT)]
    assert places[:STRAIGHT] == [None] * STRAIGHT
    assert None not in places[STRAIGHT:]


async def test_one_is_let_in_for_each_calls_passes_the_tenants_in_turn() -> None:
    door = Door()
    loud = door.crowd("loud", 40)
    door.enter("other")
    other = [door.enter("other") for _ in range(5)]
    door.turns(14)
    assert all(place is not None and place.done() for place in other)
    assert sum(place.done() for place in loud) <= 10


async def test_all_who_wait_are_let_in_and_then_the_loop_is_left_alone() -> None:
    door = Door()
    places = door.crowd("a", 30)
    turns = 0
    while door.turn():
        turns += 1
        assert turns < 40 * PASSES
    assert all(place.done() for place in places)
    assert door.stats("waiting") == 0
    assert door.stats("waited_total") == 30


async def test_a_tenant_at_its_bound_gets_429_and_another_is_let_in() -> None:
    door = Door(Fairness(waiting_per_tenant=3))
    door.crowd("loud", 3)
    with pytest.raises(Refused) as refused:
        door.enter("loud")
    assert (refused.value.refusal.status, refused.value.refusal.retry_after) == (429, 1.0)
    assert door.enter("quiet") is None
    assert door.enter("quiet") is not None
    assert door.stats("refused_tenant_total") == 1


async def test_a_full_node_lets_the_newest_of_the_loudest_go_with_503() -> None:
    door = Door(Fairness(waiting_per_tenant=5, waiting=6))
    loud = door.crowd("loud", 5)
    door.enter("b")
    door.enter("b")
    third = door.enter("b")
    assert third is not None
    with pytest.raises(Refused) as refused:
        await loud[-1]
    assert (refused.value.refusal.status, refused.value.refusal.retry_after) == (503, 1.0)
    assert not third.done()


async def test_who_is_cancelled_leaves_the_queue_at_once() -> None:
    door = Door()
    places = door.crowd("a", 10)
    before = door.stats("waiting")
    places[4].cancel()
    places[4].cancel()
    assert door.stats("waiting") == before - 1
    assert door.stats("left_total") == 1
    while door.turn():
        pass
    assert [place.cancelled() for place in places] == [index == 4 for index in range(len(places))]


async def test_who_has_waited_too_long_is_refused_and_takes_nobodys_turn() -> None:
    door = Door()
    places = door.crowd("a", 5)
    door.now += LONGEST + 1
    door.enter("b")
    fresh = door.enter("b")
    assert fresh is not None
    door.turns(2)
    assert fresh.done()
    assert fresh.exception() is None
    door.turns(2)
    assert all(isinstance(place.exception(), Refused) for place in places)


async def test_shares_follow_the_plan() -> None:
    door = Door(Fairness(weight=lambda tenant: 4.0 if tenant.plan == "pro" else 1.0))
    door.crowd("a", 1)
    door.enter("big", plan="pro")
    big = [door.enter("big", plan="pro") for _ in range(100)]
    small = [door.enter("a") for _ in range(100)]
    door.turns(51)
    done = [sum(place is not None and place.done() for place in each) for each in (big, small)]
    assert done[0] == pytest.approx(40, abs=2)
    assert done[1] == pytest.approx(10, abs=2)


@pytest.mark.parametrize("weight", [0.0, -3.0, float("nan"), float("inf"), "heavy", None])
async def test_a_weight_that_is_none_stops_nobody(weight: object) -> None:
    door = Door(Fairness(weight=lambda tenant: weight))  # type: ignore[arg-type, return-value]
    places = door.crowd("a", 5)
    while door.turn():
        pass
    assert all(place.done() for place in places)


async def test_a_weight_that_cannot_be_told_stops_nobody() -> None:
    def weight(tenant: TenantContext) -> float:
        raise KeyError(tenant.plan)

    door = Door(Fairness(weight=weight))
    places = door.crowd("a", 5)
    while door.turn():
        pass
    assert all(place.done() for place in places)


async def test_a_declared_size_beyond_all_measure_costs_no_more_than_the_largest() -> None:
    door = Door()
    door.crowd("a", 1)
    door.enter("liar")
    place = door.enter("liar", 10**17)
    after = door.enter("liar")
    assert place is not None
    assert after is not None
    for _ in range(1200):
        door.enter("a")
        door.turns(1)
        if after.done():
            break
    assert after.done()


@pytest.mark.parametrize("bound", [0, -1, 1.5, True, "many"])
def test_a_bound_that_is_none_is_refused(bound: object) -> None:
    with pytest.raises(ConfigurationError, match="waiting_per_tenant is"):
        Fairness(waiting_per_tenant=bound)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_is_cancelled_at_any_moment_leaves_nothing_behind(seed: int) -> None:
    """Requests of many tenants come, wait, are cancelled before, in and after the pass that lets them in."""
    door = Door(Fairness(waiting_per_tenant=8, waiting=40))
    chance = random.Random(seed)
    served = left = refused = straight = 0

    async def request(tenant: str) -> None:
        nonlocal served, refused, straight
        try:
            place = door.enter(tenant, chance.choice((0, 100_000)))
            if place is None:
                straight += 1
                return
            await place
            served += 1
        except Refused:
            refused += 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(400):
        tasks.append(asyncio.get_running_loop().create_task(request(f"t{chance.randrange(12)}")))
        await asyncio.sleep(0)
        if chance.random() < 0.3:
            door.turn()
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
    while door.turn():
        await asyncio.sleep(0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    left = sum(isinstance(each, asyncio.CancelledError) for each in ended)
    assert served + refused + straight + left == 400
    assert min(served, refused, straight, left) > 0
    assert door.stats("waiting") == door.stats("tenants_waiting") == 0
    assert not door.soon


async def test_tenants_that_come_and_go_leave_no_table_behind() -> None:
    door = Door(Fairness(waiting=50))
    door.crowd("loud", 30)
    for number in range(20_000):
        with contextlib.suppress(Refused):
            door.enter(f"tenant-{number}")
        if number % 50 == 0:
            door.turn()
    assert door.stats("tenants_waiting") <= 101
    while door.turn():
        await asyncio.sleep(0)
    assert door.stats("tenants_waiting") == 0
