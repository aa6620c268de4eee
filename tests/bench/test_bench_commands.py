"""Each command runs from end to end with `--quick`: shapes, not times."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from click.testing import CliRunner
from understudy.bench.asgi import Refused
from understudy.bench.cli import bench
from understudy.bench.edge import require_agreement
from understudy.bench.memory import probe
from understudy.bench.profile import profiler

pytestmark = pytest.mark.usefixtures("processes_are_forked")


@cache
def run(name: str) -> dict[str, Any]:
    result = CliRunner().invoke(bench, [*name.split(), "--quick", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"bench {name.split()[0]}: " in result.stderr
    return json.loads(result.stdout)


@pytest.fixture(params=["kernel", "edge", "memory", "actors", "tenants", "noisy", "noisy --http", "limits"])
def report(request: pytest.FixtureRequest, processes_are_forked: None) -> dict[str, Any]:
    return run(request.param)


def test_a_report_has_one_shape(report: dict[str, Any]) -> None:
    assert report["format"] == 1
    assert report["quick"] is True
    assert report["scenarios"]
    for scenario in report["scenarios"]:
        assert scenario["comparisons"]
        for figure in scenario["series"] + scenario["comparisons"]:
            assert figure["unit"]
            assert len(figure["rounds"]) == 1
            assert figure["min"] == figure["median"] == figure["max"]


def test_a_quick_report_claims_nothing(report: dict[str, Any]) -> None:
    assert {versus["met"] for scenario in report["scenarios"] for versus in scenario["comparisons"]} == {None}


def test_figures_of_sides_are_positive(report: dict[str, Any]) -> None:
    speeds = [each for scenario in report["scenarios"] for each in scenario["series"] if "bytes" not in each["unit"]]
    assert all(each["median"] > 0 for each in speeds)


def test_noisy_over_http_judges_what_leaves_the_node_some_time() -> None:
    for scenario, judged in zip(run("noisy --http")["scenarios"], (True, True, False), strict=True):
        targets = [versus["name"] for versus in scenario["comparisons"] if versus["target"]]
        assert targets == (["fair queues, p99 beside / alone"] if judged else [])


def test_edge_judges_the_targets_of_the_issue() -> None:
    targets = {
        (scenario["name"], versus["target"]["value"])
        for scenario in run("edge")["scenarios"]
        for versus in scenario["comparisons"]
        if versus["target"]
    }
    assert targets == {
        ("handshake era, 1 in flight", 6),
        ("handshake era, 1 in flight", 2.5),
        ("handshake era, 50 in flight", 6),
        ("handshake era, 50 in flight", 2.5),
        ("handshake era, sessions opened", 3),
        ("modern era, 1 in flight", 2),
        ("modern era, 1 in flight", 1.4),
        ("modern era, 50 in flight", 2),
        ("modern era, 50 in flight", 1.4),
        ("durable state, 50 sessions incrementing", 0.5),
    }


def test_noisy_judges_the_p99_of_fair_queues_within_a_process_and_over_http() -> None:
    scenarios = run("noisy")["scenarios"]
    assert [scenario["name"].partition(" ")[0] for scenario in scenarios] == ["bare", "uvicorn,", "uvicorn,"]
    for scenario in scenarios:
        (judged,) = (versus for versus in scenario["comparisons"] if versus["target"])
        assert judged["name"] == "fair queues, p99 beside / alone"
        assert judged["target"] == {"bound": "at most", "value": 2}


async def test_hosts_that_answer_differently_are_not_compared() -> None:
    def host(text: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            message = json.loads((await receive())["body"])
            status = 200 if "id" in message else 202
            reply = {"jsonrpc": "2.0", "id": message.get("id"), "result": {"content": text}}
            await send({"type": "http.response.start", "status": status, "headers": [(b"mcp-session-id", b"s")]})
            await send({"type": "http.response.body", "body": json.dumps(reply).encode()})

        return app

    await require_agreement({"A": host("5"), "B": host("5")})
    with pytest.raises(Refused, match=r"B answers .*6.* handshake era"):
        await require_agreement({"A": host("5"), "B": host("6")})


def test_without_json_the_report_is_a_table() -> None:
    result = CliRunner().invoke(bench, ["kernel", "--quick"], catch_exceptions=False)
    assert result.stdout.startswith("understudy bench kernel\n")
    assert "understudy / SDK kernel" in result.stdout


async def test_a_probe_that_fails_says_why() -> None:
    with pytest.raises(Refused, match="StoreURLError"):
        await probe("asleep", store="nonsense://", ids=["x"])


@pytest.mark.parametrize("what", ["handshake", "session", "increment", "modern"])
def test_the_profiler_names_functions(what: str) -> None:
    result = CliRunner().invoke(
        profiler, [what, "--calls", "4", "--in-flight", "2", "--top", "5"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 7
