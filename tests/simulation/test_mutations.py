"""The simulator has teeth: a machine that lacks one of its thoughts does not get through."""

from __future__ import annotations

from itertools import islice

import pytest

from simulation.mutations import MUTATIONS
from simulation.schedule import run


@pytest.mark.parametrize("name", MUTATIONS)
def test_it_is_noticed_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation = MUTATIONS[name]
    mutation.apply(monkeypatch.setattr)
    for number, seed in enumerate(islice(mutation.seeds(), mutation.within), 1):
        outcome = run(seed)
        if outcome.violation:
            print(f"noticed in schedule {number}, seed {seed}: {outcome.violation}")
            return
    pytest.fail(f"{mutation.within} schedules did not notice that {name}")


def test_there_are_enough_of_them() -> None:
    assert len(MUTATIONS) >= 15
