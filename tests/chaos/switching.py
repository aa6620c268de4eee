"""A cluster that moves to another store under load: three rolling restarts, and what sleeps is moved by the command."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from chaos.cluster import ChaosCluster, ChaosNode
from chaos.crowd import Crowd, Found
from chaos.load import Client, Told, open_sessions
from chaos.rolling import POLL, Balancer
from chaos.storm import Reckoning, Storm
from support.patience import PATIENCE
from support.server import ROOT, StartError
from understudy.stores import SessionStore, open_store

__all__ = ["Switch", "numbers", "switch_stores"]

CALLS = 30
"""Between two restarts."""


@dataclass(slots=True)
class Switch:
    """What came of it."""

    reckoning: Reckoning
    faults: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each step; `store move` is the command, which is a part of the last."""
    calls_beside: int = 0
    """While the command ran."""
    found: Found | None = None
    """Of the crowd, where there was one."""


async def switch_stores(
    cluster: ChaosCluster,
    old: str,
    new: str,
    *,
    sessions: int,
    sleepers: int,
    workers: int = 6,
    kills: bool = False,
    too_early: bool = True,
    pause: float = 0.0,
    rate: float | None = None,
    crowd: Crowd | None = None,
    busy: int = 0,
    compare_each: int = 1,
) -> Switch:
    """From `old`, in which all nodes have their sessions, to `new`. `sleepers` more sessions are used before and after
    alone. `kills`: one node is killed in the midst of each step, and its calls may be in doubt. `too_early`: one tries
    to go on before all is moved. `rate`: of the command. `crowd`: more sessions that are in `old`, of which `busy` are
    called too."""
    balancer = Balancer(cluster)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(balancer.watch(stop))
        async with Storm(cluster, sessions=sessions, workers=workers, pause=pause) as storm:
            storm.spray.choose_from(balancer)
            asleep = await open_sessions(storm.spray, sleepers)
            await _each(asleep, lambda client: storm.spray.until_told(client, "increment"))
            if crowd is not None:
                # In between: each worker has some of both before it.
                storm.clients = [
                    client for pair in zip_longest(storm.clients, crowd.choose(busy)) for client in pair if client
                ]
            done = Switch(Reckoning([], []))

            async def steps() -> None:
                for name, options in (
                    ("follow", ("--store", old, "--next-store", new)),
                    ("move", ("--store", new, "--former-store", old)),
                    ("new", ("--store", new)),
                ):
                    began = time.monotonic()
                    if name == "new":
                        if too_early:
                            done.faults += await _left_out(cluster.nodes[0], options)
                        answered, moving = storm.done, time.monotonic()
                        done.faults += await _move(old, new, rate)
                        done.seconds["store move"] = round(time.monotonic() - moving, 1)
                        done.calls_beside = storm.done - answered
                        await asyncio.sleep(SEEN)
                    for number, node in enumerate(cluster.nodes):
                        done.faults += await _restart(node, options, killed=kills and number == 1)
                        await _until_ready(node, balancer)
                        await storm.more(CALLS)
                        # One more that is opened in the midst of it.
                        storm.clients += await open_sessions(storm.spray, 2)
                    done.seconds[name] = round(time.monotonic() - began, 1)

            done.reckoning = await storm.rage(steps)
            done.faults += await _wake(storm, asleep)
            done.faults += await _judge(old, new, [*storm.clients, *asleep])
            if crowd is not None:
                done.found = await crowd.find(old, new, compare_each=compare_each)
                done.faults += done.found.faults
        stop.set()
    return done


LONGEST_MOVE = 7200.0

SEEN = 2.5
"""Seconds after which every node has seen that nothing is left, unless the store was too busy to say so."""


async def _restart(node: ChaosNode, options: Sequence[str], *, killed: bool) -> list[str]:
    if killed:
        await node.akill()
        code = 0
    else:
        code = await node.astop()
    node.command = with_stores(node.command, options)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            await node.astart()
            break
        except StartError as refused:
            if "still moves sessions" not in str(refused) or time.monotonic() > until:
                raise
    return [f"{node.name} ended with exit code {code}"] if code else []


async def _until_ready(node: ChaosNode, balancer: Balancer) -> None:
    async with asyncio.timeout(20):
        while node.name not in balancer.ready:
            await asyncio.sleep(POLL)


async def _left_out(node: ChaosNode, options: Sequence[str]) -> list[str]:
    """A node with the new store alone does not get in while something is left in the old one."""
    command = with_stores(node.command, options)
    command[command.index("--node") + 1] = "too-early"
    command[command.index("--port") + 1] = "0"
    code, said = await _run(command)
    return [] if code and "understudy store move" in said else [f"a node that comes too early got in: {code} {said}"]


async def _move(old: str, new: str, rate: float | None) -> list[str]:
    command = [sys.executable, "-m", "understudy.runtime", "store", "move", old, new]
    code, said = await _run(command if rate is None else [*command, "--rate", str(rate)], LONGEST_MOVE)
    return [] if code == 0 and "nothing is left" in said else [f"store move: {code} {said}"]


async def _run(command: Sequence[str], seconds: float = 60) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    except BaseException:
        process.kill()
        raise
    return process.returncode, said.decode()


async def _wake(storm: Storm, asleep: Sequence[Client]) -> list[str]:
    faults: list[str] = []

    async def wake(client: Client) -> None:
        try:
            faults.extend(client.faults(await storm.spray.until_told(client, "count")))
        except Told as told:
            faults.append(f"{client.session[:8]}, which slept, is lost: {told}")

    await _each(asleep, wake)
    return faults


async def _each(clients: Sequence[Client], work: Callable[[Client], Awaitable[object]]) -> None:
    waiting = list(clients)

    async def worker() -> None:
        while waiting:
            await work(waiting.pop())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(worker())


async def _judge(old: str, new: str, clients: Sequence[Client]) -> list[str]:
    former, next = await open_store(old), await open_store(new)
    try:
        left, there = await _ids(former), await _ids(next)
    finally:
        await former.aclose()
        await next.aclose()
    # New sessions of nodes that follow are in the old store; all of them have moved.
    missing = {client.session for client in clients} - there
    faults = [f"{len(left)} are left in the old store"] if left else []
    return [*faults, f"not in the new store: {missing}"] if missing else faults


async def _ids(store: SessionStore) -> set[str]:
    found: set[str] = set()
    cursor: str | None = None
    while True:
        page = await store.list(cursor=cursor, limit=1000)
        found |= {info.address.id for info in page.records}
        cursor = page.cursor
        if cursor is None:
            return found


def with_stores(command: Sequence[str], options: Sequence[str]) -> list[str]:
    """`command` of a node with these stores in place of those that it names."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word in ("--store", "--next-store", "--former-store"):
            next(words)
        else:
            kept.append(word)
    return [*kept, *options]


def numbers(done: Switch) -> dict[str, Any]:
    """For people."""
    return {**done.reckoning.numbers(), "seconds": done.seconds}
