"""What `understudy top` computes from two looks at a node."""

from __future__ import annotations

from typing import Any

import pytest
from understudy.runtime.commands.top_rows import Look, page, percentile, row_of, total_of

BOUNDS = [0.001, 0.01, 0.1]


def look(at: float, node: str = "a", pid: int = 1, calls: tuple[int, ...] = (0, 0, 0, 0), **stats: int) -> Look:
    status: dict[str, Any] = {
        "pid": pid,
        "resident": 100 * 2**20,
        "calls": {"bounds": BOUNDS, "counts": list(calls), "total": 0.0},
        "stats": {
            "sessions_live": 2,
            "sessions_waiting": 1,
            "link_backlog_bytes": 3,
            "cluster_hops_corrected": 4,
            **stats,
        },
    }
    return Look(at, node, "up", 0.5, status)


def test_a_rate_is_what_was_counted_between_two_looks() -> None:
    row = row_of(
        look(10.0, calls=(5, 0, 0, 0), cluster_forwards_served=1),
        look(12.0, calls=(5, 30, 10, 0), cluster_forwards_served=11),
    )
    assert (row.calls, row.forwarded, row.durations) == (20.0, 0.25, (0, 30, 10, 0))
    assert (row.sessions, row.waiting, row.queued, row.corrected) == (2, 1, 3, 4)


def test_a_node_that_started_anew_or_was_not_there_has_no_rate_yet() -> None:
    for before in (None, look(10.0, pid=2, calls=(50, 0, 0, 0)), Look(10.0, "a", "silent", 0.1, None)):
        row = row_of(before, look(11.0, calls=(5, 0, 0, 0)))
        assert (row.calls, row.forwarded, row.sessions) == (None, None, 2)


def test_a_node_that_does_not_answer_is_shown_all_the_same() -> None:
    row = row_of(look(1.0), Look(2.0, "a", "lost", 7.0, None))
    assert (row.node, row.state, row.sessions, row.calls) == ("a", "lost", None, None)
    (line,) = [line for line in page("c", "nats://x", [row]) if line.startswith("a ")]
    assert line.split() == ["a", "lost", "-", "-", "-", "-", "-", "-", "-", "-", "7.0s", "-"]


def test_all_nodes_together_are_weighed_by_their_calls() -> None:
    rows = [
        row_of(look(0.0), look(1.0, calls=(90, 0, 0, 0), cluster_forwards_served=90)),
        row_of(look(0.0, "b"), look(1.0, "b", calls=(0, 0, 10, 0))),
        row_of(None, Look(1.0, "c", "lost", 9.0, None)),
    ]
    total = total_of(rows)
    assert (total.calls, total.forwarded, total.durations, total.sessions) == (100.0, 0.9, (90, 0, 10, 0), 4)
    assert page("shop", "nats://x", rows)[0] == "cluster shop at nats://x: 2 nodes, 1 lost"


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ((0, 0, 0, 0), 0.5, None),
        ((10, 0, 0, 0), 0.5, 0.0005),
        ((0, 10, 0, 0), 1.0, 0.01),
        ((90, 0, 10, 0), 0.5, 0.5 / 0.9 * 0.001),
        ((90, 0, 10, 0), 0.95, 0.01 + 0.09 * 0.5),
        ((0, 0, 0, 1), 0.5, float("inf")),
    ],
)
def test_a_percentile_lies_within_its_bucket(counts: tuple[int, ...], share: float, seconds: float | None) -> None:
    found = percentile(BOUNDS, counts, share)
    assert found == (seconds if seconds is None else pytest.approx(seconds))
