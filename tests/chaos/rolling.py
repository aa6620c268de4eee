"""A rolling restart under load, behind a balancer that knows nothing but `/readyz`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.cluster import ChaosCluster
from chaos.http import fetch
from chaos.load import Fate, open_sessions
from chaos.storm import Reckoning, Storm
from support.patience import PATIENCE

__all__ = ["Balancer", "rolling_restart"]

POLL = 0.15


class Balancer:
    """Asks each node's `/readyz` again and again, and names those that said yes last."""

    def __init__(self, cluster: ChaosCluster) -> None:
        self._cluster = cluster
        self.ready = tuple(node.name for node in cluster.nodes)

    def __call__(self) -> Sequence[str]:
        return self.ready

    async def watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            answers = await asyncio.gather(*(fetch(node.port, "/readyz", timeout=1.0) for node in self._cluster.nodes))
            self.ready = tuple(
                node.name
                for node, answer in zip(self._cluster.nodes, answers, strict=True)
                if answer is not None and answer.status == 200
            )
            await asyncio.sleep(POLL)


async def rolling_restart(cluster: ChaosCluster, *, calls: int, sessions: int = 40, workers: int = 8) -> Reckoning:
    """SIGTERM one node after the other and start it again, each once the balancer sees the one before; until so many
    calls are answered. New sessions are opened all the while. Every call that gets no result is a fault."""
    balancer = Balancer(cluster)
    stop = asyncio.Event()
    faults: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(balancer.watch(stop))
        async with Storm(cluster, sessions=sessions, workers=workers) as storm:
            storm.spray.choose_from(balancer)

            async def restarts() -> None:
                for node in cluster.nodes:
                    code = await node.astop()
                    if code != 0:
                        faults.append(f"{node.name} ended with exit code {code}")
                    await storm.more(calls // 12)
                    await node.astart()
                    async with asyncio.timeout(PATIENCE):
                        while node.name not in balancer.ready:
                            await asyncio.sleep(POLL)
                    # One more that is opened in the midst of it.
                    storm.clients += await open_sessions(storm.spray, 4)

            reckoning = await storm.rage(restarts, calls=calls)
        stop.set()
    reckoning.faults[:0] = faults + [
        f"failed: {call.fate.value} {call.tool} by {call.node} after {call.seconds:.2f} s: {call.said}"
        for call in reckoning.calls
        if call.fate is not Fate.ACKNOWLEDGED
    ]
    return reckoning
