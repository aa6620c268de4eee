"""How large the runs are: small in the tests, as wanted by `CHAOS=full` or `python -m chaos` otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["FULL", "SMALL", "Scale", "chosen"]


@dataclass(frozen=True, slots=True)
class Scale:
    increments: int
    sessions: int
    races: int
    """Times that two nodes ask for a sleeping session at the same instant."""
    faults: dict[str, int]
    """Of each sort, in one storm."""
    storm_lease: str
    kills: int
    """After which fail-over is measured."""
    rolling_calls: int
    idle_sessions: int
    idle_streams: int
    idle_seconds: float
    large_rounds: int
    stream_runs: int
    """Seeded runs of streams that are struck, of each sort."""
    sleepers: int
    """Sessions that sleep while the cluster moves to another store."""
    tenants: int
    tenant_sessions: int
    """Of all tenants together."""
    tenant_calls: int
    tenant_kills: int
    """Of owners, while the calls last."""
    limit: int
    """Calls a minute of a tenant that asks for three times as many."""
    limit_seconds: float
    """... for so long."""
    limit_races: int
    """Times that three nodes race for the last tokens."""
    limit_uses: int
    """Calls in flight, sessions and open streams that a tenant may have, who wants three times as many."""
    limit_losses: bool
    """Whether nodes that hold permits die and hang; small, `tests/limits` has that in one process."""
    stream_seed: int = 1
    """The first of their seeds."""
    store: str = "nats"
    """Where sessions are kept, unless a scene is about a store of its own."""
    route: tuple[str, ...] = ()
    """Stores that `switching` goes through one after the other; else it goes from a file to `store`."""
    crowd: int = 300
    """Sessions that go this way."""


SMALL = Scale(
    increments=1200,
    sessions=60,
    races=100,
    faults={"kill": 1, "hang": 1, "nats": 1, "cut": 2, "freeze": 1},
    storm_lease="1s",
    kills=2,
    rolling_calls=600,
    idle_sessions=240,
    idle_streams=90,
    idle_seconds=2.0,
    large_rounds=1,
    stream_runs=2,
    sleepers=10,
    tenants=8,
    tenant_sessions=48,
    tenant_calls=600,
    tenant_kills=2,
    limit=60,
    limit_seconds=1.5,
    limit_races=3,
    limit_uses=20,
    limit_losses=False,
    stream_seed=111,
)

FULL = Scale(
    increments=20_000,
    sessions=200,
    races=1000,
    faults={"kill": 20, "hang": 10, "nats": 5, "cut": 5, "freeze": 1},
    storm_lease="3s",
    kills=20,
    rolling_calls=10_000,
    idle_sessions=10_000,
    idle_streams=600,
    idle_seconds=10.0,
    large_rounds=3,
    stream_runs=200,
    sleepers=2000,
    tenants=50,
    tenant_sessions=500,
    tenant_calls=100_000,
    tenant_kills=60,
    limit=1200,
    limit_seconds=130.0,
    limit_races=50,
    limit_uses=40,
    limit_losses=True,
)


def chosen() -> Scale:
    """`FULL` if the environment says `CHAOS=full`, else `SMALL`."""
    return FULL if os.environ.get("CHAOS") == "full" else SMALL
