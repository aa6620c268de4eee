"""`Troupe`: a cluster with more nodes than a run needs, so that those that were struck can come back meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from chaos.cluster import ChaosCluster, ChaosNode
from understudy.actors.task_owner import TaskOwner
from understudy.runtime.cluster.control import ControlError, ask
from understudy.runtime.cluster.key_ring import keys_in
from understudy.runtime.cluster.names import Names
from understudy.runtime.link import Seals
from understudy.runtime.streams.log_outage import LONGEST_BACKOFF
from understudy.stores.nats.client import NatsClient
from understudy.stores.nats.connection import close, connect
from understudy.stores.nats.settings import NatsSettings

__all__ = ["Troupe"]

READY_WITHIN = 60.0
DRAINED_WITHIN = 30.0


class Troupe:
    """`async with Troupe(cluster) as troupe`. What befalls a node is over by itself after a while; until then the node
    is not among `well`.
    """

    def __init__(self, cluster: ChaosCluster) -> None:
        self.cluster = cluster
        self._unwell: set[str] = set()
        self._changed = asyncio.Event()
        self._tasks = TaskOwner()
        self._operator: NatsClient
        self.deaths: dict[str, list[float]] = {node.name: [] for node in cluster.nodes}
        """When each node died, or did what others may take for its death; in seconds of the monotonic clock."""
        self.cuts: dict[str, list[float]] = {node.name: [] for node in cluster.nodes}
        """When each node lost NATS."""
        self.faults: list[str] = []

    async def __aenter__(self) -> Self:
        self._operator = await connect(NatsSettings.from_url(self.cluster.nats.url), name="chaos")
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await close(self._operator)

    @property
    def well(self) -> list[ChaosNode]:
        """Nodes that nothing has befallen, or that have got over it."""
        return [node for node in self.cluster.nodes if node.name not in self._unwell]

    async def at_least(self, number: int) -> list[ChaosNode]:
        """`well`, once there are so many."""
        async with asyncio.timeout(READY_WITHIN):
            while len(self.well) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.well

    def was_cut_since(self, name: str, began: float) -> bool:
        """Whether the node has lost NATS since then, and what it keeps there."""
        return any(at >= began for at in self.cuts[name])

    def died_since(self, name: str, began: float) -> bool:
        """Whether others may have taken the node for dead since then."""
        return any(at >= began for at in self.deaths[name])

    # What befalls a node

    async def kill(self, node: ChaosNode) -> None:
        """kill -9; it is started again, as a supervisor would."""
        if self._strike(node):
            self._dies(node)
            await node.akill()
            self._later(node, node.astart)

    async def hang(self, node: ChaosNode, seconds: float) -> None:
        """SIGSTOP, for so many seconds."""
        if self._strike(node):
            if seconds > self.cluster.lease / 2:
                self._dies(node)
            node.pause()

            async def go_on() -> None:
                await asyncio.sleep(seconds)
                node.resume()
                # What it owes to its lost lease, it does at once.
                await asyncio.sleep(0.2)

            self._later(node, go_on)

    async def cut(self, node: ChaosNode, seconds: float, *, silently: bool) -> None:
        """It loses NATS for so many seconds: its connections break, or (`silently`) nothing passes."""
        proxy = node.proxy
        assert proxy is not None, "only a cluster with proxies can be cut"
        if self._strike(node):
            # Who finds nobody there takes the sessions at once.
            self._dies(node)
            self.cuts[node.name].append(time.monotonic())
            await asyncio.to_thread(proxy.stall if silently else proxy.cut)

            async def go_on() -> None:
                await asyncio.sleep(seconds)
                await asyncio.to_thread(proxy.restore)
                await self._ready(node)
                # The event log is tried again after this time at the latest.
                await asyncio.sleep(LONGEST_BACKOFF + 0.2)

            self._later(node, go_on)

    async def drain(self, node: ChaosNode) -> None:
        """Its sessions move to others. Does not wait for that."""
        if self._strike(node):
            names, seals = Names(self.cluster.name), Seals(self.cluster.name)

            async def drain_and_return() -> None:
                settings = await self._operator.jetstream().key_value(names.settings_bucket)
                seals.use(await keys_in(settings))
                try:
                    await ask(self._operator, names, node.name, "drain", timeout=DRAINED_WITHIN, seals=seals)
                except ControlError as error:
                    self.faults.append(f"the drain of {node.name} failed: {error}")
                finally:
                    await ask(self._operator, names, node.name, "undrain", seals=seals)

            self._later(node, drain_and_return)

    def _strike(self, node: ChaosNode) -> bool:
        if node.name in self._unwell:
            return False
        self._unwell.add(node.name)
        return True

    def _dies(self, node: ChaosNode) -> None:
        self.deaths[node.name].append(time.monotonic())

    def _later(self, node: ChaosNode, get_well: Callable[[], Awaitable[object]]) -> None:
        async def recover() -> None:
            try:
                await get_well()
                self._unwell.discard(node.name)
            except Exception as error:
                self.faults.append(f"{node.name} did not recover: {error!r}")
            self._changed.set()

        self._tasks.spawn(recover())

    async def _ready(self, node: ChaosNode) -> None:
        async with asyncio.timeout(READY_WITHIN):
            while not await asyncio.to_thread(node._is_ready):
                await asyncio.sleep(0.05)
