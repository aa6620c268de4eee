"""What a benchmark says: figures per round, comparisons per round, the targets, and the machine they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from .machine import machine

__all__ = ["Basis", "Comparison", "Report", "Scenario", "Series", "Target", "ratio"]

FORMAT = 1
"""Version of the shape of `Report.as_json()`."""


Basis = Literal["measured", "extrapolated"]


@dataclass(frozen=True, slots=True)
class Target:
    """The figure that a comparison is meant to reach."""

    bound: Literal["at least", "at most"]
    value: float

    def met_by(self, figure: float) -> bool:
        return figure >= self.value if self.bound == "at least" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.bound} {_figure(self.value)}"


@dataclass(frozen=True, slots=True)
class Series:
    """One side's figure in each round, in `unit`."""

    name: str
    unit: str
    rounds: tuple[float, ...]
    basis: Basis | None = field(default=None, kw_only=True)
    """Where a report has figures of both kinds; None: all of its figures are measured."""

    @property
    def median(self) -> float:
        return median(self.rounds)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "min": min(self.rounds),
            "median": self.median,
            "max": max(self.rounds),
            "rounds": list(self.rounds),
            **({"basis": self.basis} if self.basis is not None else {}),
        }


@dataclass(frozen=True, slots=True)
class Comparison(Series):
    """What the sides say about each other, in each round, and what was hoped for."""

    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        return None if self.target is None else self.target.met_by(self.median)

    def verdict(self) -> dict[str, Any]:
        """The target, and whether it was met, as plain values."""
        target = None if self.target is None else {"bound": self.target.bound, "value": self.target.value}
        return {"target": target, "met": self.met}


def ratio(name: str, over: Series, under: Series, target: Target | None = None) -> Comparison:
    """`over` divided by `under`, round by round: both halves of each ratio were measured in the same seconds."""
    rounds = tuple(a / b for a, b in zip(over.rounds, under.rounds, strict=True))
    return Comparison(name, "x", rounds, target)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that was measured, with all its sides."""

    name: str
    series: tuple[Series, ...]
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one `understudy bench` command."""

    bench: str
    scenarios: tuple[Scenario, ...]
    quick: bool = False
    machine: dict[str, Any] = field(default_factory=machine)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`. A quick run judges nothing: its `met` are all null."""
        scenarios = [
            {
                "name": scenario.name,
                "series": [each.as_json() for each in scenario.series],
                "comparisons": [
                    {**each.as_json(), **each.verdict(), **({"met": None} if self.quick else {})}
                    for each in scenario.comparisons
                ],
            }
            for scenario in self.scenarios
        ]
        return {
            "format": FORMAT,
            "bench": self.bench,
            "quick": self.quick,
            "machine": self.machine,
            "scenarios": scenarios,
        }

    def as_text(self) -> str:
        """A table for people: medians, with the smallest and largest round beside them."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        about = self.machine
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        yield f"understudy bench {self.bench}"
        yield f"{about['cpu']}, {about['cores']} cores, {about['system']}"
        yield f"{about['python']}, {about['loop']}; {versions}"
        if self.quick:
            yield "--quick: every line ran once, nothing was measured; do not quote these figures"
        width = max((len(each.name) for it in self.scenarios for each in (*it.series, *it.comparisons)), default=0)
        for scenario in self.scenarios:
            yield ""
            yield scenario.name
            for each in scenario.series:
                yield f"  {each.name:<{width}}  {_row(each)}"
            for each in scenario.comparisons:
                judged = each.target is not None and not self.quick
                verdict = f"   {'met' if each.met else 'MISSED'}: {each.target}" if judged else ""
                yield f"  {each.name:<{width}}  {_row(each)}{verdict}"


def _row(series: Series) -> str:
    spread = f"({_figure(min(series.rounds))} .. {_figure(max(series.rounds))})" if len(series.rounds) > 1 else ""
    basis = f"{series.basis:<12}  " if series.basis is not None else ""
    return f"{_figure(series.median):>9} {series.unit:<16} {basis}{spread}".rstrip()


def _figure(value: float) -> str:
    """Three digits that count, and never fewer than the whole part."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
