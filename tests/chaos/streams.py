"""Many seeded runs in which streams, their readers and their nodes are struck: what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.load import percentile
from chaos.recital import play
from chaos.script import Script
from chaos.standing import StandingScript, listen
from chaos.troupe import Troupe

__all__ = ["NODES", "Runs", "play_recitals", "play_standing"]

NODES = 5
"""Three that a run needs, and two that may be on their way back from the one before."""


@dataclass(slots=True)
class Runs:
    """What came of some runs."""

    numbers: Counter[str] = field(default_factory=Counter[str])
    seconds: list[float] = field(default_factory=list[float])
    faults: list[str] = field(default_factory=list[str])

    def add(self, kind: str, seed: int, script: object, faults: Sequence[str], log: Sequence[str]) -> None:
        self.numbers["runs"] += 1
        if faults:
            shown = [*faults[:5], *([f"and {len(faults) - 5} more"] if len(faults) > 5 else [])]
            told = [f"FAULT {fault}" for fault in shown]
            again = f'again: make chaos ARGS="{kind} --seed {seed} --runs 1"'
            self.faults.append("\n        ".join([f"{kind}, {script}", *told, *log[-40:], again]))

    def shown(self) -> dict[str, Any]:
        return {
            **self.numbers,
            "seconds_p50": round(percentile(self.seconds, 0.5), 2),
            "seconds_max": round(max(self.seconds, default=0.0), 2),
        }


async def play_recitals(directory: Path, seeds: Sequence[int], *, store: str = "nats") -> Runs:
    """One run of a tool that sends 1,000 numbers for each seed; those of one store in one cluster. `store` takes the
    place of NATS as a store."""
    runs = Runs()
    written = [Script.of(seed) for seed in seeds]
    written = [replace(script, store=store) if script.store == "nats" else script for script in written]
    for place_kept in dict.fromkeys((store, "sqlite")):
        scripts = [script for script in written if script.store == place_kept]
        if not scripts:
            continue
        (place := directory / place_kept).mkdir(parents=True)
        async with _cluster(place, place_kept) as cluster, Troupe(cluster) as troupe:
            for script in scripts:
                began = time.monotonic()
                recital = await play(troupe, script)
                runs.seconds.append(time.monotonic() - began)
                runs.numbers[recital.outcome] += 1
                runs.numbers["connections"] += recital.books.connections
                runs.numbers["owners that died"] += recital.died
                runs.add("streams", script.seed, script, recital.faults, recital.log)
            runs.faults += troupe.faults
        runs.faults += cluster.complaints()
    return runs


async def play_standing(directory: Path, seeds: Sequence[int], *, store: str = "nats") -> Runs:
    """One run of a client that listens to numbered updates for each seed."""
    runs = Runs()
    async with _cluster(directory, store) as cluster, Troupe(cluster) as troupe:
        for seed in seeds:
            began = time.monotonic()
            script = StandingScript.of(seed)
            standing = await listen(troupe, script)
            runs.seconds.append(time.monotonic() - began)
            runs.numbers["heard"] += len(standing.heard.numbers)
            runs.numbers["missed and told"] += standing.missed
            runs.numbers["resumed"] += standing.resumed
            runs.add("standing", seed, script, standing.faults, standing.log)
        runs.faults += troupe.faults
    runs.faults += cluster.complaints()
    return runs


def _cluster(directory: Path, store: str) -> ChaosCluster:
    return ChaosCluster(directory, nodes=NODES, store=store, proxied=True, serve=("--drain-timeout", "15s"))
