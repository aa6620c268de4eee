"""Interleaving: who runs when, and what counts as time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from understudy.bench.measure import Effort, Side, Stopwatch, in_flight, interleave


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Contender:
    """A side whose operations take `cost` seconds of the clock; notes in `log` each time it runs."""

    def __init__(self, name: str, cost: float, clock: Clock, log: list[str]) -> None:
        self.name, self.cost, self.clock, self.log = name, cost, clock, log

    async def run(self, operations: int) -> None:
        self.log.append(self.name)
        self.clock.now += self.cost * operations


def silent(said: str) -> None:
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_each_side_gets_one_figure_a_round_and_it_is_its_own(clock: Clock) -> None:
    fast, slow = Contender("fast", 0.001, clock, []), Contender("slow", 0.007, clock, [])
    figures = await interleave(
        [Side("fast", fast.run), Side("slow", slow.run)], Effort(rounds=3, slices=2), silent, clock
    )
    assert figures == [pytest.approx([0.001] * 3), pytest.approx([0.007] * 3)]


async def test_sides_take_turns_and_none_is_always_first(clock: Clock) -> None:
    log: list[str] = []
    sides = [Side(name, Contender(name, 0.06, clock, log).run) for name in "AB"]
    await interleave(sides, Effort(rounds=2, slices=2, slice_seconds=0.1), silent, clock)
    warm_up, measured = log[:2], log[2:]
    assert warm_up == ["A", "B"]
    assert measured == ["A", "B", "B", "A", "B", "A", "A", "B"]


async def test_sides_get_equal_time_rather_than_equal_operations(clock: Clock) -> None:
    spent = {"fast": 0.0, "slow": 0.0}

    def side(name: str, cost: float) -> Side:
        async def run(operations: int) -> None:
            spent[name] = cost * operations
            clock.now += cost * operations

        return Side(name, run)

    effort = Effort(rounds=1, slices=1, slice_seconds=0.1)
    await interleave([side("fast", 0.0001), side("slow", 0.01)], effort, silent, clock)
    assert spent == {"fast": pytest.approx(0.1), "slow": pytest.approx(0.1)}


async def test_rest_between_slices_is_not_timed(clock: Clock) -> None:
    rested = 0

    async def rest() -> None:
        nonlocal rested
        rested += 1
        clock.now += 1000.0

    contender = Contender("A", 0.06, clock, [])
    figures = await interleave([Side("A", contender.run, rest=rest)], Effort(rounds=2, slices=2), silent, clock)
    assert rested > 0
    assert figures == [pytest.approx([0.06, 0.06])]


async def test_a_slice_is_a_multiple_of_what_is_in_flight(clock: Clock) -> None:
    sizes: list[int] = []

    async def run(operations: int) -> None:
        sizes.append(operations)
        clock.now += 0.003 * operations

    await interleave([Side("A", run, at_once=50)], Effort(rounds=1, slices=2), silent, clock)
    assert sizes
    assert all(size % 50 == 0 for size in sizes)


async def test_a_quick_run_does_each_thing_once(clock: Clock) -> None:
    log: list[str] = []
    contender = Contender("A", 0.0, clock, log)
    await interleave([Side("A", contender.run)], Effort.of(9, quick=True), silent, clock)
    assert log == ["A"] * Effort.of(9, quick=True).rounds


async def test_in_flight_keeps_every_worker_busy_at_once() -> None:
    running = most = done = 0

    async def operation() -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        done += 1

    workers: list[Callable[[], Awaitable[object]]] = [operation] * 5
    await in_flight(workers)(20)
    assert (most, done) == (5, 20)


async def test_progress_names_the_round() -> None:
    said: list[str] = []

    async def run(operations: int) -> None:
        pass

    await interleave([Side("A", run)], Effort(rounds=2, slices=1, slice_seconds=0.0), said.append)
    assert said[-2:] == ["round 1/2", "round 2/2"]


async def test_a_stopwatch_gives_the_median_operation_of_each_round_without_the_warm_up(clock: Clock) -> None:
    # The first eight warm up. Then each round has two slices of two, one of them with an operation that was held up.
    costs = iter([*[7.0] * 8, 1.0, 1.0, 1.0, 50.0, 2.0, 2.0, 60.0, 2.0])

    async def operation() -> None:
        clock.now += next(costs)

    watch = Stopwatch(operation, clock)
    await watch.run(8)
    for _ in range(4):
        await watch.run(2)
    assert watch.medians(Effort(rounds=2, slices=2)) == (1.0, 2.0)
