"""Streams whose connections, owners and edges go. `make chaos ARGS="streams standing"` plays 200 seeds of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.scale import SMALL, chosen
from chaos.scenes import SCENES
from chaos.script import Script
from chaos.standing import StandingScript
from support.nats import nats_missing


@pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")
@pytest.mark.parametrize("name", ["streams", "standing"])
async def test_streams_that_are_struck_keep_what_they_promise_in(name: str, tmp_path: Path):
    verdict = await SCENES[name](tmp_path, chosen())
    print(verdict.numbers)
    assert verdict.faults == [], verdict.numbers


def test_a_seed_is_a_script():
    for script in (Script, StandingScript):
        assert script.of(7) == script.of(7)
        assert script.of(7) != script.of(8)


def test_the_seeds_of_the_tests_strike_owners_edges_and_connections():
    scripts = [Script.of(seed) for seed in range(SMALL.stream_seed, SMALL.stream_seed + SMALL.stream_runs)]
    assert {script.store for script in scripts} == {"nats", "sqlite"}
    blows = {blow.kind for script in scripts for blow in script.blows}
    assert {"drop", "twice", "kill-edge", "kill-owner", "drain-owner"} <= blows
    assert {blow[1] for seed in range(SMALL.stream_seed, SMALL.stream_seed + SMALL.stream_runs)
            for blow in StandingScript.of(seed).blows} >= {"drop", "kill-edge", "kill-owner"}  # fmt: skip
