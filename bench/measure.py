"""Interleaved timing: A/B/A/B in one run, so that a noisy minute falls on every side alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

import anyio

__all__ = ["Effort", "Progress", "Side", "Stopwatch", "in_flight", "interleave"]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. A round is `slices` slices of about `slice_seconds` of each side, taken in turn."""

    rounds: int = 5
    slices: int = 8
    slice_seconds: float = 0.05
    quick: bool = False

    @classmethod
    def of(cls, rounds: int, *, quick: bool) -> Effort:
        """The usual effort, or with `quick` just enough to run every line once."""
        return cls(rounds=1, slices=1, slice_seconds=0.0, quick=True) if quick else cls(rounds=rounds)


@dataclass(frozen=True, slots=True)
class Side:
    """One contender. `run(n)` does `n` operations; `rest` runs between slices and is not timed."""

    name: str
    run: Callable[[int], Awaitable[None]]
    at_once: int = 1
    """`n` is always a multiple of this."""
    unit: str = "calls/s"
    rest: Callable[[], Awaitable[None]] | None = None


def in_flight(workers: Sequence[Callable[[], Awaitable[object]]]) -> Callable[[int], Awaitable[None]]:
    """A `Side.run` that keeps as many operations in flight as there are workers, each worker one after the other."""

    async def repeat(operation: Callable[[], Awaitable[object]], times: int) -> None:
        for _ in range(times):
            await operation()

    async def run(operations: int) -> None:
        if len(workers) == 1:
            await repeat(workers[0], operations)
            return
        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(repeat, worker, operations // len(workers))

    return run


class Stopwatch:
    """Times the operations of a side one by one, one in flight. Its `run` is the `Side.run`.

    For what waits for other processes: where the machine is shared, a mean tells how often somebody else had the
    processor, a median how long the operation takes.
    """

    def __init__(
        self, operation: Callable[[], Awaitable[object]], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._operation = operation
        self._clock = clock
        self._slices: list[list[float]] = []

    async def run(self, operations: int) -> None:
        clock, operation = self._clock, self._operation
        seconds: list[float] = []
        for _ in range(operations):
            started = clock()
            await operation()
            seconds.append(clock() - started)
        self._slices.append(seconds)

    def medians(self, effort: Effort) -> tuple[float, ...]:
        """Seconds of the median operation in each round of an `interleave` that is over; warming up is left out."""
        measured = self._slices[-effort.rounds * effort.slices :]
        rounds = [measured[at : at + effort.slices] for at in range(0, len(measured), effort.slices)]
        return tuple(median([second for cut in each for second in cut]) for each in rounds)


async def interleave(
    sides: Sequence[Side], effort: Effort, progress: Progress, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds per operation, for each side a list with one figure per round.

    Each side gets the same share of time, not of operations, so that all figures are equally exact; the order turns
    with the rounds. Garbage is collected before each slice: nobody pays for what another left behind.
    """
    progress("warming up")
    sizes = [await _warm_up(side, effort, clock) for side in sides]
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(effort.rounds):
        progress(f"round {number + 1}/{effort.rounds}")
        spent = [0.0] * len(sides)
        for cut in range(effort.slices):
            for place in range(len(sides)):
                index = (place + number + cut) % len(sides)
                spent[index] += await _timed(sides[index], sizes[index], clock)
        for index, total in enumerate(spent):
            seconds[index].append(total / (sizes[index] * effort.slices))
    return seconds


async def _warm_up(side: Side, effort: Effort, clock: Callable[[], float]) -> int:
    """Run the side until it is warm; how many operations make a slice."""
    if effort.quick:
        return side.at_once
    operations = side.at_once
    while True:
        elapsed = await _timed(side, operations, clock)
        if elapsed >= effort.slice_seconds / 2:
            wanted = operations * effort.slice_seconds / elapsed
            return max(1, round(wanted / side.at_once)) * side.at_once
        operations *= 2


async def _timed(side: Side, operations: int, clock: Callable[[], float]) -> float:
    gc.collect()
    started = clock()
    await side.run(operations)
    elapsed = clock() - started
    if side.rest is not None:
        await side.rest()
    return elapsed
