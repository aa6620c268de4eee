"""The report: ratios round by round, targets, and no verdict on a run that measured nothing."""

from __future__ import annotations

import json

import pytest
from understudy.bench.report import Comparison, Report, Scenario, Series, Target, ratio


def a_report(*, quick: bool = False, figure: float = 3.0) -> Report:
    series = (Series("them", "calls/s", (1.0, 2.0)), Series("us", "calls/s", (figure, figure)))
    versus = ratio("us / them", series[1], series[0], Target("at least", 2))
    return Report("edge", (Scenario("calls", series, (versus,)),), quick=quick)


def test_a_ratio_is_taken_within_each_round() -> None:
    # A noisy round slows both sides alike: each ratio is 2, though no two figures of one side agree.
    us, them = Series("us", "calls/s", (2000.0, 200.0, 20.0)), Series("them", "calls/s", (1000.0, 100.0, 10.0))
    assert ratio("us / them", us, them).rounds == (2.0, 2.0, 2.0)


def test_a_ratio_of_series_with_different_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio("us / them", Series("us", "x", (1.0,)), Series("them", "x", (1.0, 2.0)))


@pytest.mark.parametrize(
    ("bound", "figures", "met"),
    [
        ("at least", (1.0, 6.0, 9.0), True),
        ("at least", (1.0, 5.9, 9.0), False),
        ("at most", (1.0, 6.0, 9.0), True),
        ("at most", (1.0, 6.1, 9.0), False),
    ],
)
def test_a_target_is_met_by_the_median(bound: str, figures: tuple[float, ...], met: bool) -> None:
    target = Target("at least" if bound == "at least" else "at most", 6)
    assert Comparison("it", "x", figures, target).met is met


def test_a_comparison_without_a_target_is_neither_met_nor_missed() -> None:
    assert Comparison("it", "x", (1.0,)).met is None


def test_the_json_holds_every_round_and_the_verdict() -> None:
    (scenario,) = json.loads(json.dumps(a_report().as_json()))["scenarios"]
    assert scenario["series"][0] == {
        "name": "them",
        "unit": "calls/s",
        "min": 1.0,
        "median": 1.5,
        "max": 2.0,
        "rounds": [1.0, 2.0],
    }
    (versus,) = scenario["comparisons"]
    assert versus["rounds"] == [3.0, 1.5]
    assert versus["target"] == {"bound": "at least", "value": 2}
    assert versus["met"] is True


def test_the_json_says_which_machine() -> None:
    machine = a_report().as_json()["machine"]
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert {"understudy", "mcp"} <= machine["versions"].keys()


def test_the_text_shows_median_spread_and_verdict() -> None:
    lines = a_report().as_text().splitlines()
    assert any(
        line.split() == ["us", "/", "them", "2.25", "x", "(1.50", "..", "3)", "met:", "at", "least", "2"]
        for line in lines
    )
    assert any("MISSED: at least 2" in line for line in a_report(figure=0.5).as_text().splitlines())


def test_a_quick_run_is_not_judged() -> None:
    report = a_report(quick=True, figure=0.5)
    assert "MISSED" not in report.as_text()
    assert "do not quote" in report.as_text()
    assert report.as_json()["scenarios"][0]["comparisons"][0]["met"] is None


def test_a_figure_of_mixed_origin_says_where_it_comes_from() -> None:
    series = (
        Series("10 nodes", "messages/s", (5.0, 5.0), basis="measured"),
        Series("1,000 nodes", "messages/s", (500.0, 500.0), basis="extrapolated"),
    )
    report = Report("scale", (Scenario("messages", series),))
    found = report.as_json()["scenarios"][0]["series"]
    assert [each["basis"] for each in found] == ["measured", "extrapolated"]
    lines = report.as_text().splitlines()
    assert lines[-2].split() == ["10", "nodes", "5", "messages/s", "measured", "(5", "..", "5)"]
    assert lines[-1].split() == ["1,000", "nodes", "500", "messages/s", "extrapolated", "(500", "..", "500)"]
