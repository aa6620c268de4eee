"""Schedules of nodes in neighbouring steps of a move, with crashes and late calls anywhere: see `world.py`.

A seed that fails is played again with `play(seed)`.
"""

from __future__ import annotations

import pytest
from moving.mutations import MUTATIONS, mutated
from moving.world import MIDST, first_violation, play

SEEDS = range(240)
MOST = 1000


@pytest.mark.parametrize("first", SEEDS[::40])
def test_one_writer_nothing_lost_nothing_back_in_every_schedule(first: int) -> None:
    for seed in range(first, first + 40):
        try:
            play(seed)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("what", MUTATIONS)
def test_the_simulation_finds_a_mistake(what: str) -> None:
    with mutated(what):
        assert first_violation(range(MOST), MIDST) is not None
