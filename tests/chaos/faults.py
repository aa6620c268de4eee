"""What can happen to a cluster, as often as wanted, each time with some load before the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chaos.storm import Storm

__all__ = ["FAULTS", "Fault"]

Fault = Callable[[Storm, int], Awaitable[None]]
"""Happens to the cluster of a storm; the number says how many times it has before."""

BETWEEN = 40
"""Calls between two faults at least."""


async def kill_a_node(storm: Storm, number: int) -> None:
    """kill -9 an owner; it is started again, as a supervisor would."""
    node = storm.cluster.nodes[number % len(storm.cluster.nodes)]
    await node.akill()
    await storm.more(BETWEEN)
    await node.astart()


async def hang_a_node(storm: Storm, number: int) -> None:
    """SIGSTOP for three times the lease; then the zombie comes back."""
    node = storm.cluster.nodes[number % len(storm.cluster.nodes)]
    node.pause()
    # What it has is stuck with it; the rest of the load goes on elsewhere, and writes to its sessions.
    storm.spray.choose_from([other.name for other in storm.cluster.nodes if other is not node])
    try:
        await asyncio.sleep(storm.cluster.lease * 3)
    finally:
        node.resume()
    await asyncio.sleep(0.05)
    storm.spray.choose_from(list(storm.cluster.ports))
    await storm.more(BETWEEN)


async def crash_nats(storm: Storm, number: int) -> None:
    """kill -9 nats-server, and start it again."""
    await storm.cluster.crash_nats(away=(0.0, 0.5, storm.cluster.lease * 1.5)[number % 3])
    await storm.more(BETWEEN)


async def cut_a_node_off(storm: Storm, number: int) -> None:
    """One node loses NATS, for less or for more than its lease: broken connections, or a silent network."""
    node = storm.cluster.nodes[number % len(storm.cluster.nodes)]
    assert node.proxy is not None, "only a cluster with proxies can be cut"
    (node.proxy.cut, node.proxy.stall)[number % 2]()
    try:
        await asyncio.sleep(storm.cluster.lease * (0.5, 2.0, 2.0)[number % 3])
    finally:
        node.proxy.restore()
    await storm.more(BETWEEN)


async def freeze_the_store(storm: Storm, number: int) -> None:
    """The store stands still for 2 s."""
    await storm.cluster.freeze_store(2.0)
    await storm.more(BETWEEN)


async def crash_the_store(storm: Storm, number: int) -> None:
    """The store ends as in a crash, and starts again."""
    await storm.cluster.crash_store(away=(0.0, 0.5, storm.cluster.lease * 1.5)[number % 3])
    await storm.more(BETWEEN)


FAULTS: dict[str, Fault] = {
    "kill": kill_a_node,
    "hang": hang_a_node,
    "nats": crash_nats,
    "cut": cut_a_node_off,
    "freeze": freeze_the_store,
    "store": crash_the_store,
}
