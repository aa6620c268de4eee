"""How long the next call takes when the owner of its session has died, or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.load import Call, Client, Fate, Spray, open_sessions, percentile

__all__ = ["Failovers", "after_a_hang", "after_kills"]


@dataclass(slots=True)
class Failovers:
    """The first call to each session of a node that had just died."""

    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return [call.seconds for call in self.calls]

    def numbers(self) -> dict[str, Any]:
        return {
            "calls": len(self.calls),
            "failed": sum(call.fate is not Fate.ACKNOWLEDGED for call in self.calls),
            "p50_ms": round(percentile(self.seconds, 0.5) * 1000, 1),
            "p99_ms": round(percentile(self.seconds, 0.99) * 1000, 1),
            "max_ms": round(max(self.seconds, default=0) * 1000, 1),
        }


async def after_kills(cluster: ChaosCluster, *, kills: int, sessions: int, at_once: int = 1) -> Failovers:
    """kill -9 nodes in turn; right after, call each of the dead node's sessions once through the others."""
    spray = Spray(cluster.ports)
    found = Failovers()
    try:
        for number in range(kills):
            victim = cluster.nodes[number % len(cluster.nodes)]
            clients = await open_sessions(spray, sessions, at=victim.name)
            others = [node.name for node in cluster.nodes if node is not victim]
            for client in clients:
                # Through another node, so that the edges know where the session is, as they do in the midst of work.
                await spray.call(client, "increment", node=others[number % len(others)])
            await victim.akill()
            found.calls += await _call_each(spray, clients, others, at_once)
            found.faults += [fault for client in clients for fault in client.faults(2)]
            await victim.astart()
    finally:
        spray.close()
    return found


async def _call_each(spray: Spray, clients: Sequence[Client], nodes: Sequence[str], at_once: int) -> list[Call]:
    waiting = list(enumerate(clients))
    made: list[Call] = []

    async def work() -> None:
        while waiting:
            index, client = waiting.pop()
            made.append(await spray.call(client, "increment", node=nodes[index % len(nodes)]))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(work())
    return made


async def after_a_hang(cluster: ChaosCluster, *, sessions: int = 5) -> Failovers:
    """SIGSTOP an owner; what repeatable calls to its sessions, through another node, cost while it hangs."""
    spray = Spray(cluster.ports)
    found = Failovers()
    victim = cluster.nodes[0]
    try:
        clients = await open_sessions(spray, sessions, at=victim.name)
        for client in clients:
            await spray.call(client, "increment", node=cluster.nodes[1].name)
        victim.pause()
        try:
            found.calls = list(
                await asyncio.gather(*(spray.call(c, "count", node=cluster.nodes[1].name) for c in clients))
            )
        finally:
            victim.resume()
    finally:
        spray.close()
    return found
