"""`bench stores` and `bench coldstart` run from end to end with `--quick`: shapes, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.redis import fresh_prefix
from understudy.bench.cli import bench
from understudy.stores import Page, open_store

OPERATIONS = ("claim", "save", "load", "touch", "rehydrate")


def run(*args: str) -> dict[str, Any]:
    result = CliRunner().invoke(bench, [*args, "--quick", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def judged(report: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    return [
        (scenario["name"], versus["name"], versus["target"]["bound"], versus["target"]["value"])
        for scenario in report["scenarios"]
        for versus in scenario["comparisons"]
        if versus["target"]
    ]


async def left(url: str) -> Page:
    store = await open_store(url)
    page = await store.list()
    await store.aclose()
    return page


def check(url: str, name: str, *raws: str) -> None:
    report = run("stores", "--url", url)
    *_, beside = raws = raws or ("raw client",)
    assert judged(report) == [
        (f"{name}: 64 in flight", f"{operation}: store / {beside}", "at least", 0.7) for operation in OPERATIONS
    ]
    for scenario in report["scenarios"]:
        shown = [versus["name"] for versus in scenario["comparisons"]]
        assert shown == [f"{operation}: store / {raw}" for operation in OPERATIONS for raw in raws]
    assert {versus["met"] for scenario in report["scenarios"] for versus in scenario["comparisons"]} == {None}
    assert all(figure["median"] > 0 for scenario in report["scenarios"] for figure in scenario["series"])
    assert asyncio.run(left(url)).records == ()


def test_sqlite_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    check(f"sqlite:///{tmp_path}/sessions.db", "sqlite")
    assert {name.partition("-")[0] for name in os.listdir(tmp_path)} <= {"sessions.db"}


def test_redis_is_measured_and_left_as_it_was(redis_url: str) -> None:
    check(f"{redis_url}?prefix={fresh_prefix()}", "redis")


def test_postgresql_is_measured_and_left_as_it_was(postgres_url: str) -> None:
    check(postgres_url, "postgresql")


def test_nats_is_measured_and_left_as_it_was(nats_url: str) -> None:
    check(f"{nats_url}/bench-stores", "nats")


def test_dynamodb_is_measured_and_left_as_it_was(dynamodb_url: str) -> None:
    check(dynamodb_url, "dynamodb", "raw client", "raw client that fences")


def test_a_store_without_a_raw_client_is_refused_before_anything_is_measured() -> None:
    result = CliRunner().invoke(bench, ["stores", "--quick", "--url", "memory://"])
    assert result.exit_code == 1
    assert "bench stores has no raw client to measure this store beside; it knows dynamodb://, nats://" in result.output


def test_coldstart_judges_time_and_processor_time() -> None:
    report = run("coldstart")
    names = [name for name, *_ in judged(report)]
    assert names[0].startswith("from exec to the answer of the first call")
    assert names[1] == "processor time of that process until then"
    assert {(bound, value) for _, _, bound, value in judged(report)} == {("at most", 1.5)}
    assert all(figure["median"] > 0 for scenario in report["scenarios"] for figure in scenario["series"])


def test_coldstart_leaves_a_store_that_was_there_as_it_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    report = run("coldstart", "--url", url)
    assert [series["name"] for series in report["scenarios"][0]["series"]] == [
        "mcp alone, no session",
        "understudy serve, sqlite",
    ]
    assert asyncio.run(left(url)).records == ()


@pytest.fixture(autouse=True)
def _no_options_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("UNDERSTUDY_")]:
        monkeypatch.delenv(name)
