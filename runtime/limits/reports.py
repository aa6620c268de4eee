"""`Reports`: what a node has spent of a rate, and has yet to enter into the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from .ledger import WINDOW, Ledger, tick_of

__all__ = ["Report", "Reports", "enter"]

MOST: Final = 4
MOST_TICKS: Final = tick_of(WINDOW) + 2


class Report(NamedTuple):
    """How much was spent in which ticks."""

    serial: int
    """Higher than that of every report before it."""
    spent: dict[int, int]


class Reports:
    """bounded: beyond `MOST` the two oldest are made one."""

    __slots__ = ("_next_serial", "_untold", "_wall", "_written", "serial")

    def __init__(self, wall: Callable[[], float], next_serial: Callable[[], int]) -> None:
        """`wall`: seconds since the Unix epoch. `next_serial`: a number for a report, higher than all before it."""
        self._wall = wall
        self._next_serial = next_serial
        self._untold: dict[int, int] = {}
        self._written: list[Report] = []
        self.serial = 0
        """The latest report's."""

    def spend(self, count: int, tick: int | None = None) -> None:
        """So much was spent in `tick`; None: just now."""
        if tick is None:
            tick = tick_of(self._wall())
        untold = self._untold
        if tick in untold:
            untold[tick] += count
        else:
            untold[tick] = count
            if len(untold) > MOST_TICKS:
                # It has come back by now. Where a limit is far away nobody is told for long.
                del untold[next(iter(untold))]

    def write(self) -> list[Report]:
        """All that is to be told now. What was spent so long ago that it matters no more is forgotten."""
        if self._written:
            oldest = tick_of(self._wall()) - tick_of(WINDOW) - 1
            self._written = [report for report in self._written if max(report.spent) >= oldest]
        if self._untold:
            self.serial = self._next_serial()
            self._written.append(Report(self.serial, self._untold))
            self._untold = {}
            if len(self._written) > MOST:
                # Whether the first of them has arrived is not known; entered twice it keeps others waiting, no more.
                first, second = self._written[:2]
                for tick, count in first.spent.items():
                    second.spent[tick] = second.spent.get(tick, 0) + count
                self._written[:2] = [second]
        return list(self._written)

    def arrived(self, serial: int) -> None:
        """All up to this one are in the ledger."""
        self._written = [report for report in self._written if report.serial > serial]

    def drop(self) -> None:
        """Nobody is to be told any of it."""
        self._untold, self._written = {}, []

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._untold or self._written)


def enter(reports: Sequence[Report], ledger: Ledger, *, after: int) -> None:
    """Enter those of `reports` into `ledger` that are later than the report `after`, which it has."""
    for report in reports:
        if report.serial > after:
            for tick, count in report.spent.items():
                ledger.spend(tick, count)
