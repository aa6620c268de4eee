"""What `/metrics` says: a runtime's plain numbers as Prometheus text, without global state."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .metric_names import GAUGES, HISTOGRAMS, TOTALS

__all__ = ["Latency", "render_metrics", "understudy_version"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Latency:
    """How long things took: a histogram of fixed buckets, light enough for every call (about 0.2 us)."""

    BOUNDS: tuple[float, ...] = (
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
        0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    )  # fmt: skip
    """Upper bounds in seconds; what took longer counts in a bucket of its own."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts as Prometheus wants them: `("0.001", 17.0), ..., ("+Inf", 42.0)`."""
        labels = [*(f"{bound:g}" for bound in self.BOUNDS), "+Inf"]
        seen = 0
        rows: list[tuple[str, float]] = []
        for label, count in zip(labels, self.counts, strict=True):
            seen += count
            rows.append((label, float(seen)))
        return rows


class _Numbers(Collector):
    def __init__(
        self, stats: Mapping[str, float], node_id: str, latencies: Mapping[str, Latency], more: Iterable[Metric]
    ) -> None:
        self.stats = stats
        self.node_id = node_id
        self.latencies = latencies
        self.more = more

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily(
            "understudy_node",
            "The node that answers this scrape.",
            {"node": self.node_id, "version": understudy_version()},
        )
        for name, value in sorted(self.stats.items()):
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"metric name {name!r} must match {_NAME.pattern}")
            if name in TOTALS or name.endswith("_total"):
                yield CounterMetricFamily(f"understudy_{name}", _help(name, TOTALS), value)
            else:
                yield GaugeMetricFamily(f"understudy_{name}", _help(name, GAUGES), value)
        for name, latency in sorted(self.latencies.items()):
            yield HistogramMetricFamily(f"understudy_{name}", _help(name, HISTOGRAMS), latency.buckets(), latency.total)
        yield from self.more


def _help(name: str, texts: Mapping[str, str]) -> str:
    # A store of the user's own may have numbers that nobody here has heard of.
    return texts.get(name) or f"{name.replace('_', ' ').capitalize()}."


def render_metrics(
    stats: Mapping[str, float],
    node_id: str,
    latencies: Mapping[str, Latency] | None = None,
    more: Iterable[Metric] = (),
) -> tuple[bytes, str]:
    """A scrape's body and its content type.

    Names get the prefix `understudy_`. Those in `metric_names.TOTALS`, and others that end in `_total`, are counters;
    the rest are gauges. `latencies` maps names such as `call_seconds` to histograms; `more` are
    families that have labels.

    Raises:
        ValueError: A name that Prometheus would not take.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(stats, node_id, latencies or {}, more))
    return generate_latest(registry), CONTENT_TYPE


def understudy_version() -> str:
    """This package's version, as installed."""
    try:
        return version("understudy")
    except PackageNotFoundError:
        return "unknown"
