"""`Latencies`: how long the calls of a quiet tenant took, alone and beside a noisy one, and what to say of that."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from .report import Comparison, Scenario, Series, Target, ratio

__all__ = ["Latencies", "quantile", "scenario"]

TARGET = Target("at most", 2)


def _rounds() -> list[list[float]]:
    return []


@dataclass(slots=True)
class Latencies:
    """Of one side, a list for each round. In seconds, and calls a second."""

    name: str
    alone: list[list[float]] = field(default_factory=_rounds)
    beside: list[list[float]] = field(default_factory=_rounds)
    noisy_calls: list[list[float]] = field(default_factory=_rounds)
    """Of the noisy tenant, in each slice."""

    def begin_round(self) -> None:
        for each in (self.alone, self.beside, self.noisy_calls):
            each.append([])


def quantile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def scenario(title: str, sides: list[Latencies], *, judged: bool = True) -> Scenario:
    """p50 and p99 of all sides, and how much the noisy tenant has moved them; the last side is judged, if any is."""
    series: list[Series] = []
    comparisons: list[Comparison] = []
    for side in sides:
        for share, mark in ((0.5, "p50"), (0.99, "p99")):
            alone, beside = (
                Series(f"{side.name}, {mark} {when}", "ms", tuple(1000 * quantile(each, share) for each in rounds))
                for when, rounds in (("alone", side.alone), ("beside the noisy one", side.beside))
            )
            series += [alone, beside]
            target = TARGET if judged and side is sides[-1] and mark == "p99" else None
            comparisons.append(ratio(f"{side.name}, {mark} beside / alone", beside, alone, target))
        noisy = tuple(median(each) for each in side.noisy_calls)
        series.append(Series(f"{side.name}, calls of the noisy one", "calls/s", noisy))
    return Scenario(title, tuple(series), tuple(comparisons))
