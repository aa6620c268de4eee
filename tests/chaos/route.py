"""A great many sessions go from store to store, one move after the other, while some of them are called."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.crowd import Crowd
from chaos.load import HANDSHAKE, MODERN, Fate, Spray, open_sessions
from chaos.store_servers import STORE_SERVERS
from chaos.switching import Switch, switch_stores
from understudy.stores import Address, Record, SessionStore, open_store

__all__ = ["go_through"]

WORKERS = 2
PAUSE = 0.04
"""Seconds between two calls of a worker: a load that is there, and leaves the machine to the move."""

RATE = 100_000.0
"""Sessions a second that the command may move: as fast as it goes."""

COMPARE_EACH = {"dynamodb": 20}
"""moto reads some hundred items a second. The command has compared each."""


async def go_through(directory: Path, route: Sequence[str], *, sessions: int) -> tuple[dict[str, Any], list[str]]:
    """Fill the first store of `route`, and move on to each of the others as a cluster does, in three rolling restarts:
    what came to the one is what the next is filled from. Numbers of each move, and what is wrong."""
    numbers: dict[str, Any] = {}
    faults: list[str] = []
    async with AsyncExitStack() as stack:
        urls = {name: await _started(name, directory, stack) for name in dict.fromkeys(route)}
        options = ("--idle-after", "2s", "--lame-duck", "0.5s")
        cluster = ChaosCluster(directory, store=urls[route[0]], nodes=2, lease="15s", serve=options)
        await stack.enter_async_context(cluster)
        crowd = Crowd()
        began = time.monotonic()
        await _fill(crowd, cluster, urls[route[0]], sessions)
        _say("filled", {"store": route[0], "sessions": sessions, "seconds": round(time.monotonic() - began, 1)})
        for number, (old, new) in enumerate(pairwise(route), 1):
            done = await switch_stores(
                cluster,
                urls[old],
                urls[new],
                sessions=min(40, sessions),
                sleepers=0,
                workers=WORKERS,
                pause=PAUSE,
                too_early=sessions > 1000,
                rate=RATE,
                crowd=crowd,
                busy=min(200, sessions // 4),
                compare_each=COMPARE_EACH.get(new, 1),
            )
            name = f"{number}: {old} -> {new}"
            numbers[name] = _numbers(done)
            _say(name, numbers[name])
            found = [*done.faults, *done.reckoning.faults, *done.reckoning.complaints]
            faults += [f"{name}: {fault}" for fault in found]
    return numbers, faults


async def _started(name: str, directory: Path, stack: AsyncExitStack) -> str:
    if name not in STORE_SERVERS:
        # A cluster's own NATS would have leases wait behind 200,000 writes to the disk.
        if name == "sqlite":
            return f"sqlite:///{directory}/crowd.db"
        name = "nats-apart"
    (directory / name).mkdir()
    server = STORE_SERVERS[name][0](directory / name)
    stack.push_async_callback(server.stop)
    await server.start()
    return server.url


async def _fill(crowd: Crowd, cluster: ChaosCluster, url: str, sessions: int) -> None:
    store = await open_store(url)
    try:
        with Spray(cluster.ports) as spray:
            clients = await open_sessions(spray, 2, eras=(HANDSHAKE, MODERN))
        await crowd.fill(store, [(client.era, await _record(store, client.session)) for client in clients], sessions)
    finally:
        await store.aclose()


async def _record(store: SessionStore, id: str) -> Record:
    record = await store.load(Address("session", id))
    assert record is not None, "a session that was opened is in the store"
    return record


def _numbers(done: Switch) -> dict[str, Any]:
    calls = done.reckoning.calls
    return {
        "seconds": done.seconds,
        "calls": len(calls),
        "calls_during_store_move": done.calls_beside,
        "acknowledged": done.reckoning.total(Fate.ACKNOWLEDGED),
        "increments": done.reckoning.increments,
        "stale_reads": done.reckoning.stale_reads,
        **(done.found.numbers() if done.found is not None else {}),
    }


def _say(what: str, numbers: dict[str, Any]) -> None:
    # At once: a long way takes an hour.
    print(f"    {time.strftime('%H:%M:%S')} {what}: {json.dumps(numbers)}", flush=True)
