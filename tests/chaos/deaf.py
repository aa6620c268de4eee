"""Clients that ask for much and read nothing: what that costs the node of their sessions, and the one they asked."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import psutil
from chaos.cluster import ChaosCluster
from chaos.load import HANDSHAKE, Client, Fate, Spray, open_sessions
from chaos.sse import EventStream

__all__ = ["Deafness", "ten_deaf_readers"]

READERS = 10
TOTAL = 400
LARGE = 100_000
"""Characters of each of the numbers that a tool sends: 40 MB a reader, of which 8 MiB are kept."""
MIB = 2**20


@dataclass(slots=True)
class Deafness:
    """What was seen. Memory in MiB beyond what the process had before."""

    owner: float = 0.0
    edge: float = 0.0
    seconds: float = 0.0
    slowest_echo: float = 0.0
    faults: list[str] = field(default_factory=list[str])

    def numbers(self) -> dict[str, Any]:
        return {
            "sent_mib": round(READERS * TOTAL * LARGE / MIB),
            "owner_grew_mib": round(self.owner, 1),
            "edge_grew_mib": round(self.edge, 1),
            "seconds": round(self.seconds, 1),
            "slowest_echo_ms": round(self.slowest_echo * 1000, 1),
        }


async def ten_deaf_readers(cluster: ChaosCluster) -> Deafness:
    """Ten tools flood ten clients that take the head of the answer and nothing else; until all tools are done."""
    owner, edge, other = cluster.nodes[:3]
    found = Deafness()
    memory = {node.name: psutil.Process(node.pid).memory_info().rss for node in (owner, edge)}

    def grown(name: str) -> float:
        return (psutil.Process(cluster.node(name).pid).memory_info().rss - memory[name]) / MIB

    async with AsyncExitStack() as stack:
        spray = stack.enter_context(Spray(cluster.ports))
        clients = await open_sessions(spray, READERS, at=owner.name, eras=(HANDSHAKE,))
        (quick,) = await open_sessions(spray, 1, at=owner.name, eras=(HANDSHAKE,))
        began = time.monotonic()
        for client in clients:
            stream = await _flood(client, edge.port)
            stack.callback(stream.abort)
        # Waits in each mailbox until the flood before it is over.
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        ends = [tasks.create_task(spray.call(client, "increment", node=other.name)) for client in clients]
        while not all(end.done() for end in ends):
            echo = await spray.call(quick, "echo", node=edge.name, text="hello")
            if echo.value != "hello":
                found.faults.append(f"echo: {echo}")
            found.slowest_echo = max(found.slowest_echo, echo.seconds)
            found.owner = max(found.owner, grown(owner.name))
            found.edge = max(found.edge, grown(edge.name))
            await asyncio.sleep(0.1)
        found.seconds = time.monotonic() - began
        found.faults += [f"{end.result()}" for end in ends if end.result().fate is not Fate.ACKNOWLEDGED]
    return found


async def _flood(client: Client, port: int) -> EventStream:
    arguments = {"total": TOTAL, "burst": 10, "pause": 0.001, "large_every": 1, "large": LARGE}
    headers, body = client.request("recite", arguments)
    message = json.loads(body)
    message["params"]["_meta"] = {"progressToken": "numbers"}
    return await EventStream.open(port, "POST", headers, json.dumps(message).encode())
