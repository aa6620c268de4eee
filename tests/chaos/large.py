"""What large messages between two nodes cost an echo between the same two."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.load import MODERN, Spray, open_sessions, percentile
from support.server import ROOT

__all__ = ["MIB", "Beside", "beside_large_ones"]

MIB = 2**20
PAUSE = 0.005
"""Seconds between two echoes."""


@dataclass(slots=True)
class Beside:
    """Seconds that an echo took, alone and beside large messages."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def times(self, share: float) -> float:
        """How many times longer it took beside, at a percentile."""
        return percentile(self.beside, share) / percentile(self.alone, share)

    def numbers(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"echoes": len(self.beside), "faults": len(self.faults)}
        for name, share in (("p50", 0.5), ("p90", 0.9), ("max", 1.0)):
            alone, beside = percentile(self.alone, share), percentile(self.beside, share)
            shown |= {f"alone_{name}_ms": round(alone * 1000, 1), f"beside_{name}_ms": round(beside * 1000, 1)}
            shown[f"times_{name}"] = round(self.times(share), 1)
        return shown


async def beside_large_ones(
    cluster: ChaosCluster,
    *,
    at_once: int = 10,
    rounds: int = 2,
    echoes: int = 150,
    result: int = 8 * MIB,
    argument: int = 4 * MIB,
    edge: int = 1,
    echo_edge: int = 1,
    echo_owner: int = 0,
) -> Beside:
    """Measure an echo of a session of one node by another, alone and while `at_once` large results and arguments of
    sessions of the first node cross to the node `edge`."""
    spray = Spray(cluster.ports)
    names = [node.name for node in cluster.nodes]
    found = Beside()
    try:
        (quick,) = await open_sessions(spray, 1, at=names[echo_owner])
        large = await open_sessions(spray, at_once, at=names[0], eras=(MODERN,))

        async def echo() -> float:
            call = await spray.call(quick, "echo", node=names[echo_edge], text="hello")
            if call.value != "hello":
                found.faults.append(f"echo: {call.fate.value} {call.said}")
            await asyncio.sleep(PAUSE)
            return call.seconds

        for _ in range(echoes):
            found.alone.append(await echo())
        work = {
            "port": cluster.nodes[edge].port,
            "era": MODERN,
            "sessions": [client.session for client in large],
            "rounds": rounds,
            "result": result,
            "argument": argument,
        }
        carrier = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chaos.carrier", json.dumps(work), cwd=ROOT / "tests", stdout=asyncio.subprocess.PIPE
        )
        assert carrier.stdout is not None
        try:
            assert await carrier.stdout.readline() == b"begins\n"
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(carrier.stdout.read())
                while not reading.done():
                    found.beside.append(await echo())
            assert await carrier.wait() == 0, "the process that carries the large ones failed"
            found.faults += json.loads(reading.result())
        finally:
            if carrier.returncode is None:
                carrier.kill()
                await carrier.wait()
    finally:
        spray.close()
    return found
