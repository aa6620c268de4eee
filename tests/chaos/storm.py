"""`Storm`: load without a pause while things break, and the reckoning afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

from chaos.cluster import ChaosCluster, ChaosNode
from chaos.load import HANDSHAKE, MODERN, Call, Client, Fate, Spray, Told, open_sessions, percentile

__all__ = ["Reckoning", "Storm"]

NEAR = 0.1
"""Seconds between the death of a node and the end of the calls that broke with it."""


@dataclass(slots=True)
class Reckoning:
    """What came of a storm."""

    calls: list[Call]
    faults: list[str]
    stale_reads: int = 0
    complaints: list[str] = field(default_factory=list)

    def total(self, fate: Fate) -> int:
        return sum(call.fate is fate for call in self.calls)

    @property
    def increments(self) -> int:
        return sum(call.tool == "increment" and call.fate is Fate.ACKNOWLEDGED for call in self.calls)

    def numbers(self) -> dict[str, Any]:
        seconds = [call.seconds for call in self.calls]
        fates = {fate.value: number for fate, number in Counter(call.fate for call in self.calls).items()}
        return {
            "calls": len(self.calls),
            "increments": self.increments,
            **fates,
            "stale_reads": self.stale_reads,
            "faults": len(self.faults),
            "p50_ms": round(percentile(seconds, 0.5) * 1000, 1),
            "p99_ms": round(percentile(seconds, 0.99) * 1000, 1),
            "max_s": round(max(seconds, default=0.0), 2),
        }


class Storm:
    """`async with Storm(cluster) as storm`: sessions of both eras are open then.

    Eight calls of ten are increments, which must not run twice; one is idempotent, one reads. Several workers may call
    one session at the same time.

    Args:
        pause: Seconds that each worker waits between two calls.
    """

    def __init__(self, cluster: ChaosCluster, *, sessions: int = 40, workers: int = 16, pause: float = 0.0) -> None:
        self.cluster = cluster
        self.spray = Spray(cluster.ports)
        self.clients: list[Client] = []
        self._sessions = sessions
        self._workers = workers
        self._pause = pause
        self._stack = AsyncExitStack()
        self._done = 0

    async def __aenter__(self) -> Self:
        self._stack.callback(self.spray.close)
        self.clients = await open_sessions(self.spray, self._sessions, eras=(HANDSHAKE, MODERN))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @property
    def done(self) -> int:
        """Calls that have been answered."""
        return self._done

    async def rage(self, faults: Callable[[], Awaitable[None]] | None = None, *, calls: int = 0) -> Reckoning:
        """Keep calling until `faults` has happened and `calls` are answered; what it came to."""
        stop = asyncio.Event()
        names = count()
        clients = self._in_turn()
        async with asyncio.TaskGroup() as tasks:
            for worker in range(self._workers):
                # Each rather asks one node: what is stuck there does not stop the load elsewhere.
                node = self.cluster.nodes[worker % len(self.cluster.nodes)].name
                tasks.create_task(self._work(node, clients, names, stop))
            if faults is not None:
                await faults()
            while self._done < calls:
                await asyncio.sleep(0.01)
            stop.set()
        return await self.reckon()

    def _in_turn(self) -> Iterator[Client]:
        for number in count():
            yield self.clients[number % len(self.clients)]

    async def more(self, calls: int) -> None:
        """Return when so many more calls have been answered."""
        goal = self._done + calls
        while self._done < goal:
            await asyncio.sleep(0.01)

    async def _work(self, node: str, clients: Iterator[Client], names: Iterator[int], stop: asyncio.Event) -> None:
        while not stop.is_set():
            number = next(names)
            client = next(clients)
            if number % 10 == 8:
                await self.spray.call(client, "mark", rather=node, name=str(number % 50))
            elif number % 10 == 9:
                await self.spray.call(client, "count", rather=node)
            else:
                await self.spray.call(client, "increment", rather=node)
            self._done += 1
            if self._pause:
                await asyncio.sleep(self._pause)

    async def reckon(self) -> Reckoning:
        """Ask each session for its count, now that nothing is in flight, and compare with what was acknowledged."""
        calls = [call for client in self.clients for call in client.calls]
        stale = sum(client.stale_reads() for client in self.clients)
        waiting = list(self.clients)
        faults = [
            f"broken without reason: {call}" for call in calls if call.fate is Fate.BROKEN and not self._killed(call)
        ]

        lease = self.cluster.lease
        if late := sum(client.stale_reads(older_than=lease) for client in self.clients):
            faults.append(f"{late} reads missed what had been acknowledged a lease before")

        async def ask() -> None:
            while waiting:
                client = waiting.pop()
                try:
                    faults.extend(client.faults(await self.spray.until_told(client, "count")))
                    before = len(client.calls)
                    if (again := await self.spray.until_told(client, "count")) != client.calls[before - 1].value:
                        faults.append(f"{client.session[:8]}: the count went on to {again} by itself")
                except Told as told:
                    faults.append(f"{client.era} session {client.session[:8]} is lost: {told}")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(ask())
        return Reckoning(calls, faults, stale, self.cluster.complaints())

    def _killed(self, call: Call) -> bool:
        node: ChaosNode = self.cluster.node(call.node)
        return any(call.began - NEAR <= at <= call.ended + NEAR for at in node.killed_at)
