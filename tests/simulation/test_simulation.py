"""The ownership machine, and what a schedule of faults may do to it. `make simulate` plays as many as wanted."""

from __future__ import annotations

import pytest

from simulation.schedule import THEMES, run

SEEDS = 300


@pytest.mark.parametrize("theme", sorted(set(THEMES)))
def test_no_invariant_is_broken_in_schedules_of(theme: str) -> None:
    for seed in range(1, SEEDS + 1):
        if THEMES[seed % len(THEMES)] == theme:
            outcome = run(seed)
            assert not outcome.violation, f"make simulate SEED={seed}: {outcome.violation}"
            assert outcome.answered


def test_a_seed_replays_exactly() -> None:
    first, again, other = run(7, tracing=True), run(7, tracing=True), run(8, tracing=True)
    assert first.lines
    assert first == again
    assert first.lines != other.lines


def test_tracing_changes_nothing() -> None:
    traced, untraced = run(11, tracing=True), run(11)
    assert (traced.calls, traced.answered, traced.events) == (untraced.calls, untraced.answered, untraced.events)
