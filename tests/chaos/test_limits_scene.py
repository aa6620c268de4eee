"""Limits at three real nodes. `make chaos ARGS=limits` plays two minutes of each rate, and kills and hangs nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.customers import Came, Outcome, most_at_once, most_in
from chaos.scale import chosen
from chaos.scenes import SCENES
from support.nats import nats_missing


@pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")
async def test_limits_are_held_by_three_nodes_whose_counters_hang_and_are_deleted(tmp_path: Path):
    verdict = await SCENES["limits"](tmp_path, chosen())
    print(verdict.numbers)
    assert verdict.faults == [], verdict.numbers


def test_a_minute_with_too_many_calls_is_found_wherever_it_begins():
    calls = [Outcome(Came.DONE, moment, moment + 0.1) for moment in (0.0, 50.0, 55.0, 70.0, 105.0)]
    assert most_in(60.0, calls) == 4
    assert most_in(60.0, [*calls, Outcome(Came.LIMITED, 60.0, 60.0)]) == 4
    # One that may have run before or after that minute proves nothing.
    assert most_in(60.0, [Outcome(Came.DONE, 0.0, 90.0), *calls[1:]]) == 4


def test_what_ran_at_once_is_counted_by_the_times_that_it_tells():
    held = [Outcome(Came.DONE, 0, 9, {"began": began, "ended": began + 2.0}) for began in (0.0, 1.0, 1.5, 3.0)]
    assert most_at_once(held) == 3
