"""`/metrics`: the text that Prometheus reads."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from understudy.runtime.metrics import HELP, Latency, render_metrics


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


def test_each_help_text_belongs_to_a_name_that_can_be_rendered() -> None:
    body, _ = render_metrics(dict.fromkeys((name for name in HELP if not name.endswith("_seconds")), 1), "n1")
    for name, text in HELP.items():
        if not name.endswith("_seconds"):
            assert f"# HELP understudy_{name} {text}".encode() in body
