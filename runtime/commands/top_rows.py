"""What `understudy top` makes of two looks at a node. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .console import age, plural, size, table

__all__ = ["Look", "Row", "page", "percentile", "row_of", "total_of"]


@dataclass(frozen=True, slots=True)
class Look:
    """A node at one moment."""

    at: float
    """Monotonic seconds of whoever looked."""
    node: str
    state: str
    lease_age: float
    status: Mapping[str, Any] | None
    """What it answered; None if it did not."""


@dataclass(frozen=True, slots=True)
class Row:
    """A node between two looks. None: not known."""

    node: str
    state: str
    lease_age: float | None
    sessions: int | None = None
    waiting: int | None = None
    calls: float | None = None
    """A second."""
    forwarded: float | None = None
    """Share of the calls that another node had taken in, 0 to 1."""
    corrected: int | None = None
    """Forwards to a wrong node since its start."""
    durations: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()
    queued: int | None = None
    """Bytes that wait to go to other nodes."""
    resident: int | None = None


def row_of(before: Look | None, now: Look) -> Row:
    """What happened between two looks; of a node that was not there before, or started anew, only what is so now."""
    status = now.status
    if status is None:
        return Row(now.node, now.state, now.lease_age)
    stats: Mapping[str, float] = status["stats"]
    counts, earlier, served_before = list(status["calls"]["counts"]), None, 0.0
    if (
        before is not None
        and before.status is not None
        and before.status["pid"] == status["pid"]
        and now.at > before.at
    ):
        earlier = before.status["calls"]["counts"]
        served_before = before.status["stats"].get("cluster_forwards_served", 0)
    calls = forwarded = None
    durations: tuple[int, ...] = ()
    if before is not None and earlier is not None and len(earlier) == len(counts):
        durations = tuple(max(0, new - old) for new, old in zip(counts, earlier, strict=True))
        calls = sum(durations) / (now.at - before.at)
        if sum(durations):
            forwarded = min(1.0, (stats.get("cluster_forwards_served", 0) - served_before) / sum(durations))
    return Row(
        now.node,
        now.state,
        now.lease_age,
        int(stats.get("sessions_live", 0)),
        int(stats.get("sessions_waiting", 0)),
        calls,
        forwarded,
        int(stats.get("cluster_hops_corrected", 0)),
        durations,
        tuple(status["calls"]["bounds"]),
        int(stats.get("link_backlog_bytes", 0)),
        int(status["resident"]),
    )


def total_of(rows: Sequence[Row]) -> Row:
    """All nodes together."""
    told = [row for row in rows if row.sessions is not None]
    calls = [row for row in told if row.calls is not None]
    per_second = sum(row.calls or 0.0 for row in calls)
    came = sum((row.calls or 0.0) * (row.forwarded or 0.0) for row in calls)
    lengths = {len(row.durations) for row in calls}
    merged = [sum(row.durations[n] for row in calls) for n in range(lengths.pop())] if len(lengths) == 1 else []
    return Row(
        "all",
        "",
        None,
        sum(row.sessions or 0 for row in told),
        sum(row.waiting or 0 for row in told),
        per_second if calls else None,
        came / per_second if per_second else None,
        sum(row.corrected or 0 for row in told),
        tuple(merged),
        calls[0].bounds if calls else (),
        sum(row.queued or 0 for row in told),
        sum(row.resident or 0 for row in told),
    )


def percentile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Seconds below which `share` of the counted lie, straight between a bucket's bounds; None if none was counted.

    Infinity where it lies beyond the last bound.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    below = 0
    for number, count in enumerate(counts):
        if below + count >= wanted and count:
            if number >= len(bounds):
                return float("inf")
            lower = bounds[number - 1] if number else 0.0
            return lower + (bounds[number] - lower) * (wanted - below) / count
        below += count
    return float("inf")


def page(cluster: str, where: str, rows: Sequence[Row], note: str = "") -> list[str]:
    """The lines to show."""
    lost = sum(row.state == "lost" for row in rows)
    head = f"cluster {cluster} at {where}: {plural(len(rows) - lost, 'node')}{f', {lost} lost' if lost else ''}"
    headers = ("NODE", "STATE", "SESSIONS", "CALLS/S", "FWD", "HOPS", "P50", "P99", "WAIT", "LINK", "LEASE", "RSS")
    shown = [*rows, total_of(rows)] if len(rows) > 1 else list(rows)
    text = table(headers, [_cells(row) for row in shown], right_from=2)
    return [head, "", *text.splitlines(), *(["", note] if note else [])]


def _cells(row: Row) -> tuple[object, ...]:
    told = row.sessions is not None
    return (
        row.node,
        row.state,
        row.sessions,
        row.calls,
        _share(row.forwarded),
        row.corrected,
        _duration(percentile(row.bounds, row.durations, 0.50)),
        _duration(percentile(row.bounds, row.durations, 0.99)),
        row.waiting,
        size(row.queued) if told else None,
        age(row.lease_age),
        size(row.resident) if told else None,
    )


def _share(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds == float("inf"):
        return "long"
    return f"{seconds * 1000:.1f}ms" if seconds < 1 else f"{seconds:.1f}s"
