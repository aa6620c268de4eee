"""`/metrics`: the text that Prometheus reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp.server.mcpserver import MCPServer
from prometheus_client.parser import text_string_to_metric_families
from understudy.runtime import Runtime
from understudy.runtime.telemetry.metric_names import GAUGES, TOTALS
from understudy.runtime.telemetry.metrics import Latency, render_metrics
from understudy.stores import SQLiteStore


def families(body: bytes) -> dict[str, object]:
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def test_totals_are_counters_and_the_rest_are_gauges() -> None:
    body, content_type = render_metrics({"sessions_live": 3, "calls_total": 7}, "n1")
    found = families(body)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert (found["understudy_sessions_live"].type, found["understudy_calls"].type) == ("gauge", "counter")
    assert [sample.value for sample in found["understudy_calls"].samples] == [7.0]
    assert b"# TYPE understudy_calls_total counter" in body
    assert b"# HELP understudy_sessions_live " in body


def test_the_node_and_its_version_are_an_info_metric() -> None:
    body, _ = render_metrics({}, 'n"1\\')
    (sample,) = families(body)["understudy_node_info"].samples
    assert sample.labels["node"] == 'n"1\\'
    assert sample.labels["version"][0].isdigit()


def test_a_name_that_prometheus_would_not_take_is_refused() -> None:
    for name in ("", "Upper", "with-dash", "a b", "9lives"):
        with pytest.raises(ValueError, match="metric name"):
            render_metrics({name: 1}, "n1")


def test_nothing_is_kept_between_scrapes() -> None:
    render_metrics({"calls_total": 7}, "n1")
    body, _ = render_metrics({"other": 1}, "n2")
    assert b"calls" not in body
    assert b"n1" not in body


def test_a_latency_is_a_histogram_whose_buckets_are_cumulative() -> None:
    latency = Latency()
    for seconds in (0.00005, 0.001, 0.0011, 0.3, 3600.0):
        latency.observe(seconds)
    body, _ = render_metrics({}, "n1", {"call_seconds": latency})
    family = families(body)["understudy_call_seconds"]
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert family.type == "histogram"
    assert values["0.0001"] == 1
    assert values["0.001"] == 2
    assert values["0.0025"] == 3
    assert values["60"] == 4
    assert values["+Inf"] == values["understudy_call_seconds_count"] == latency.count == 5
    assert values["understudy_call_seconds_sum"] == pytest.approx(3600.30215)
    assert list(values.values())[:-2] == sorted(list(values.values())[:-2])


async def test_every_number_of_a_runtime_has_its_own_help_text_and_kind() -> None:
    async with Runtime(MCPServer("s"), store="memory://") as runtime:
        stats = runtime.stats()
    assert {name for name in stats if name not in GAUGES and name not in TOTALS} == set()


async def test_the_numbers_of_the_sqlite_store_have_their_own_help_texts_and_kinds(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "x.db")
    names = {f"store_{name}" for name in store.stats()}
    await store.aclose()
    assert {name for name in names if name not in GAUGES and name not in TOTALS} == set()


def test_a_total_is_a_counter_whether_or_not_its_name_says_so() -> None:
    body, _ = render_metrics({"sessions_saves": 4, "streams_resumed_total": 2}, "n1")
    assert b"# TYPE understudy_sessions_saves_total counter\nunderstudy_sessions_saves_total 4.0\n" in body
    assert b"# TYPE understudy_streams_resumed_total counter\nunderstudy_streams_resumed_total 2.0\n" in body
