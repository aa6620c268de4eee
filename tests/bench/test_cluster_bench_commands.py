"""`bench forward`, `failover`, `scale` and `streams` run from end to end with `--quick`: shapes, not times."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

import pytest
from click.testing import CliRunner
from understudy.bench.cli import bench
from understudy.bench.forward import BODY
from understudy.bench.forward_profile import forward_profiler

pytestmark = pytest.mark.usefixtures("processes_are_forked")

NAMES = ["forward", "failover", "scale", "streams"]


@cache
def run(name: str) -> dict[str, Any]:
    result = CliRunner().invoke(bench, [name, "--quick", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"bench {name}: " in result.stderr
    return json.loads(result.stdout)


@pytest.fixture(params=NAMES)
def report(request: pytest.FixtureRequest, processes_are_forked: None) -> dict[str, Any]:
    return run(request.param)


def figures(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for scenario in report["scenarios"] for each in scenario["series"] + scenario["comparisons"]]


def targets(report: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    return [
        (scenario["name"].split()[0], versus["name"], versus["target"]["bound"], versus["target"]["value"])
        for scenario in report["scenarios"]
        for versus in scenario["comparisons"]
        if versus["target"]
    ]


def test_a_report_of_a_cluster_has_the_shape_of_the_others(report: dict[str, Any]) -> None:
    assert report["format"] == 1
    assert report["quick"] is True
    for figure in figures(report):
        assert figure["unit"]
        assert figure["rounds"]
        assert figure["min"] <= figure["median"] <= figure["max"]
    assert {versus["met"] for scenario in report["scenarios"] for versus in scenario["comparisons"]} <= {None}


def test_forward_judges_the_link_a_forwarded_call_and_a_cluster() -> None:
    assert targets(run("forward")) == [
        ("256", "link / raw", "at least", 1.0),
        ("1", "what forwarding adds to a call", "at most", 1.5),
        ("3", "round robin / every call at its owner", "at least", 0.6),
    ]


def test_forward_compares_the_same_payload_of_about_two_hundred_bytes() -> None:
    assert 180 <= len(BODY) <= 240
    assert f"{len(BODY)} bytes there" in run("forward")["scenarios"][0]["name"]


def test_failover_judges_a_killed_owner_and_a_hung_one() -> None:
    assert targets(run("failover")) == [
        ("kill", "answered after, median", "at most", 100),
        ("kill", "answered after, 99th percentile", "at most", 500),
        ("SIGSTOP", "answered after, longest", "at most", 3000),
    ]


def test_a_call_to_a_hung_owner_waits_until_its_lease_is_over() -> None:
    (longest,) = run("failover")["scenarios"][-1]["comparisons"]
    # At most a second of three lies between the last renewal and the signal, and another between that and the call.
    assert 500 < longest["median"] < 10_000


def test_every_figure_of_scale_says_whether_it_was_measured() -> None:
    assert {figure["basis"] for figure in figures(run("scale"))} == {"measured", "extrapolated"}


def test_scale_reaches_a_thousand_nodes_and_ten_million_sessions() -> None:
    names = {figure["name"]: figure for figure in figures(run("scale"))}
    assert names["messages, 10,000,000 sessions"]["basis"] == "extrapolated"
    assert names["delivered to all, 1,000 nodes"]["basis"] == "extrapolated"
    assert names["1,000 nodes, 10,000,000 sessions: tables of each node"]["median"] > 0


def test_what_is_extrapolated_grows_in_proportion_to_what_was_measured() -> None:
    names = {figure["name"]: figure["median"] for figure in figures(run("scale"))}
    assert names["messages, 10,000,000 sessions"] == pytest.approx(names["messages, 200 sessions"] * 50_000)
    # Each renewal is heard by all and acknowledged: 3 nodes are heard 4 times, 1,000 nodes 1,001 times.
    assert names["delivered to all, 1,000 nodes"] == pytest.approx(
        names["delivered to all, 3 nodes"] * (1000 * 1001) / (3 * 4)
    )


def test_members_that_nobody_uses_send_a_renewal_each_and_nothing_else() -> None:
    names = {figure["name"]: figure["median"] for figure in figures(run("scale"))}
    # A lease of half a second is renewed three times in its time.
    assert names["published, 3 nodes"] == pytest.approx(3 * 6, rel=0.35)
    assert names["delivered to all, 3 nodes"] == pytest.approx(4 * names["published, 3 nodes"], rel=0.25)


def test_streams_judges_events_a_second_and_the_weight_of_an_idle_stream() -> None:
    found = targets(run("streams"))
    assert found[0] == ("bare", "understudy, memory / SDK", "at least", 3)
    assert found[-1] == (
        found[-1][0],
        "understudy, beyond the server's connection",
        "at most",
        12 * 1024,
    )
    assert {target[1:] for target in found} == {found[0][1:], found[-1][1:]}


def test_streams_resumes_in_memory_from_the_log_and_at_another_node_beside_the_sdk() -> None:
    resumed = run("streams")["scenarios"][-1]
    assert [each["name"] for each in resumed["series"]] == [
        "SDK, same process",
        "same node, from memory",
        "same node, started anew",
        "another node",
    ]
    assert all(each["median"] > 0 for each in resumed["series"])


@pytest.mark.parametrize("side", [[], ["--owner"]], ids=["edge", "owner"])
def test_the_profiler_of_forwarded_calls_names_functions_of_both_nodes(side: list[str]) -> None:
    result = CliRunner().invoke(
        forward_profiler, ["--calls", "40", "--in-flight", "2", "--top", "400", *side], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert ("_forward" if not side else " serve") in result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_without_nats_py_it_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [each for each in sys.modules if each.partition(".")[0] == "nats"]:
        monkeypatch.delitem(sys.modules, module)
    for module in [each for each in sys.modules if each.startswith("understudy.bench.") and "cli" not in each]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "nats", None)
    result = CliRunner().invoke(bench, [name, "--quick"])
    assert result.exit_code == 1
    assert "understudy[cluster]" in result.output
