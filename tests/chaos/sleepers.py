"""Sessions that sleep: asked for by two nodes at the same instant, or left in peace."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import psutil
from chaos.cluster import ChaosCluster
from chaos.http import Connection, fetch
from chaos.load import HANDSHAKE, Client, Fate, Spray, open_sessions

__all__ = ["Peace", "Races", "gauge", "peace", "races"]

ASLEEP_WITHIN = 30.0


@dataclass(slots=True)
class Races:
    """Two nodes, one sleeping session, one instant; so many times."""

    races: int = 0
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


async def races(cluster: ChaosCluster, *, sessions: int, rounds: int) -> Races:
    """All sessions fall asleep, then each is asked for by two nodes at once; `rounds` times. The cluster's `idle_after`
    should be short."""
    spray = Spray(cluster.ports)
    names = list(cluster.ports)
    found = Races()
    try:
        clients = await open_sessions(spray, sessions)
        for number in range(rounds):
            await _all_asleep(cluster)
            waiting = list(clients)

            async def race(waiting: list[Client], number: int) -> None:
                while waiting:
                    client = waiting.pop()
                    one, other = names[number % 3], names[(number + 1 + len(waiting) % 2) % 3]
                    calls = await asyncio.gather(
                        spray.call(client, "increment", node=one), spray.call(client, "increment", node=other)
                    )
                    wheres = await asyncio.gather(
                        spray.call(client, "whoami", node=one), spray.call(client, "whoami", node=other)
                    )
                    found.races += 1
                    found.slowest = max(found.slowest, *(call.seconds for call in calls))
                    values = sorted(call.value or 0 for call in calls)
                    if values != [2 * number + 1, 2 * number + 2]:
                        found.faults.append(f"round {number}: {calls}")
                    if any(call.fate is not Fate.ACKNOWLEDGED for call in wheres):
                        found.faults.append(f"round {number}: {wheres}")
                    elif wheres[0].value["node"] != wheres[1].value["node"]:
                        found.faults.append(f"round {number}: two owners: {wheres}")

            async with asyncio.TaskGroup() as tasks:
                for _ in range(8):
                    tasks.create_task(race(waiting, number))
        for client in clients:
            found.faults += client.faults(await spray.until_told(client, "count"))
    finally:
        spray.close()
    return found


async def _all_asleep(cluster: ChaosCluster) -> None:
    async with asyncio.timeout(ASLEEP_WITHIN):
        # Nobody has it in memory, and nobody keeps its address for a while either.
        while await gauge(cluster, "understudy_sessions_live") + await gauge(cluster, "understudy_cluster_held") > 0:
            await asyncio.sleep(0.1)


async def gauge(cluster: ChaosCluster, name: str) -> float:
    """The sum of a number in the nodes' `/metrics`."""
    total, seen = 0.0, False
    for node in cluster.nodes:
        answer = await fetch(node.port, "/metrics", timeout=5.0)
        assert answer is not None, f"{node.name} shows no metrics"
        for line in answer.body.decode().splitlines():
            if line.startswith((f"{name}{{", f"{name} ")):
                total += float(line.rpartition(" ")[2])
                seen = True
    assert seen, f"no node has a metric {name}"
    return total


@dataclass(slots=True)
class Peace:
    """What a cluster did in a time in which nobody asked it anything."""

    seconds: float
    messages: int
    """That clients of NATS, so the nodes, have sent."""
    expected: float
    """Of these, renewals of leases."""
    cpu: dict[str, float]
    """Seconds of CPU time of each node."""

    def numbers(self) -> dict[str, Any]:
        cpu = sum(self.cpu.values()) / len(self.cpu) / self.seconds
        return {
            "seconds": round(self.seconds, 1),
            "messages": self.messages,
            "renewals": round(self.expected),
            "cpu_per_node": f"{cpu:.2%}",
        }


async def peace(cluster: ChaosCluster, *, sessions: int, streams: int, seconds: float, settle: float = 2.5) -> Peace:
    """Open sessions, `streams` of them with a GET that listens at another node than the owner; then count what the
    nodes say to NATS in `seconds` of silence."""
    spray = Spray(cluster.ports)
    names = list(cluster.ports)
    async with AsyncExitStack() as stack:
        stack.callback(spray.close)
        for index, name in enumerate(names):
            elsewhere = names[(index + 1) % len(names)]
            if not sessions:
                break
            listening = streams // len(names)
            for client in await open_sessions(spray, listening, at=name, eras=(HANDSHAKE,)):
                connection = Connection("127.0.0.1", cluster.ports[elsewhere])
                stack.callback(connection.close)
                status = await connection.stream("/mcp", client.stream_headers())
                assert status == 200, f"a GET at {elsewhere} of a session at {name} was answered {status}"
            await open_sessions(spray, sessions // len(names) - listening, at=name)
        spray.close()
        await asyncio.sleep(settle)
        processes = {node.name: psutil.Process(node.pid) for node in cluster.nodes}
        cpu = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
        before, began = await _messages(cluster), time.monotonic()
        await asyncio.sleep(seconds)
        lasted = time.monotonic() - began
        return Peace(
            lasted,
            await _messages(cluster) - before,
            len(names) * lasted * 3 / cluster.lease,
            {name: sum(process.cpu_times()[:2]) - cpu[name] for name, process in processes.items()},
        )


async def _messages(cluster: ChaosCluster) -> int:
    answer = await fetch(cluster.monitoring, "/varz")
    assert answer is not None, "nats-server shows no /varz"
    return json.loads(answer.body)["in_msgs"]
