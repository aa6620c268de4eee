"""`understudy bench failover`: how long the clients of a node wait when it dies, and when it hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import Any, Literal

from .asgi import Refused
from .clients import PreparedCall
from .fleet import HTTP, Fleet, FleetNode, described_nodes, fleet
from .http_client import Answer, HttpConnection, RemoteSession, open_session
from .local_nats import local_nats
from .measure import Effort, Progress
from .report import Comparison, Report, Scenario, Series, Target
from .servers import INCREMENT

__all__ = ["bench_failover"]

LEASES = (3.0, 30.0)
HUNG_LEASE = 3.0
SESSIONS = 200
"""Of the node that dies or hangs; each has one next call."""
OTHERS = 9
"""Sessions of all nodes that are called all the time: the light load."""
PACE = 0.05
"""Seconds between two calls of one of them."""
SPREAD = 1.0
"""Seconds after the end of the node over which the next calls begin, evenly."""

P50_TARGET = Target("at most", 100.0)
P99_TARGET = Target("at most", 500.0)
HUNG_TARGET = Target("at most", HUNG_LEASE * 1000)

Outcome = Literal["answered", "unknown", "refused"]


async def bench_failover(effort: Effort, progress: Progress) -> Report:
    """Measure; a round is one node killed, or paused, in each scenario."""
    scenarios: list[Scenario] = []
    for lease in LEASES[:1] if effort.quick else LEASES:
        async with local_nats() as nats, fleet(nats.url, "--lease", f"{lease:g}s") as nodes:
            scenarios.append(await _killed(nodes, lease, SPREAD, effort, progress))
            if not effort.quick:
                scenarios.append(await _killed(nodes, lease, 0.0, effort, progress))
            if lease == HUNG_LEASE:
                scenarios.append(await _hung(nodes, effort, progress))
    return Report("failover", tuple(scenarios), effort.quick)


async def _killed(nodes: Fleet, lease: float, spread: float, effort: Effort, progress: Progress) -> Scenario:
    rounds: list[Round] = []
    for number in range(effort.rounds):
        progress(f"kill -9, lease {lease:g} s, {_spread(spread)}: round {number + 1}/{effort.rounds}")
        victim = nodes.nodes[number % len(nodes.nodes)]
        rounds.append(await _round(nodes, victim, _sessions(effort), spread, victim.kill))
        victim.start()
        await victim.ready()
        await asyncio.sleep(_SETTLE)
    title = f"kill -9 of the owner, lease {lease:g} s: the next call of each of its sessions, {_spread(spread)}"
    p50 = tuple(_percentile(it.milliseconds, 0.50) for it in rounds)
    p99 = tuple(_percentile(it.milliseconds, 0.99) for it in rounds)
    # All at once is no client's next call but a herd's: how fast 200 sessions can move, not how long one waits.
    targets = (P50_TARGET, P99_TARGET) if spread else (None, None)
    comparisons = (
        Comparison("answered after, median", "ms", p50, targets[0]),
        Comparison("answered after, 99th percentile", "ms", p99, targets[1]),
    )
    return Scenario(f"{title} ({described_nodes(HTTP)})", _series(rounds), comparisons)


async def _hung(nodes: Fleet, effort: Effort, progress: Progress) -> Scenario:
    rounds: list[Round] = []
    for number in range(effort.rounds):
        progress(f"SIGSTOP, lease {HUNG_LEASE:g} s: round {number + 1}/{effort.rounds}")
        victim = nodes.nodes[number % len(nodes.nodes)]
        try:
            rounds.append(await _round(nodes, victim, _sessions(effort), SPREAD, victim.pause))
        finally:
            victim.resume()
        # The hung node finds that its lease is over, and comes back as another incarnation.
        await asyncio.sleep(HUNG_LEASE if not effort.quick else 0.5)
        await victim.ready()
    title = f"SIGSTOP of the owner, lease {HUNG_LEASE:g} s: the next call of each of its sessions, {_spread(SPREAD)}"
    slowest = tuple(max(it.milliseconds) for it in rounds)
    middle = tuple(median(it.milliseconds) for it in rounds)
    series = (Series("answered after, median", "ms", middle), *_series(rounds))
    return Scenario(title, series, (Comparison("answered after, longest", "ms", slowest, HUNG_TARGET),))


_SETTLE = 1.0
"""Seconds for all nodes to hear of one that has come back."""


def _sessions(effort: Effort) -> int:
    return 6 if effort.quick else SESSIONS


def _spread(seconds: float) -> str:
    return f"begun evenly over {seconds:g} s" if seconds else "all begun at once"


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@dataclass(slots=True)
class Round:
    """What the clients saw of one end of a node."""

    milliseconds: list[float] = field(default_factory=list[float])
    """Of each next call of the node's sessions, until its answer."""
    unknown: int = 0
    """Of those and of the light load: told that the outcome is unknown, as must be where the owner had them already."""
    refused: int = 0
    """Told that nothing was done."""
    others: list[float] = field(default_factory=list[float])
    """Milliseconds of the light load's calls to sessions of the nodes that live on."""


def _series(rounds: Sequence[Round]) -> tuple[Series, ...]:
    return (
        Series("calls whose outcome is unknown, light load too", "calls", tuple(float(it.unknown) for it in rounds)),
        Series("calls refused (503)", "calls", tuple(float(it.refused) for it in rounds)),
        Series(
            "meanwhile, sessions of other nodes, 99th percentile",
            "ms",
            tuple(_percentile(it.others, 0.99) if it.others else 0.0 for it in rounds),
        ),
    )


class Client:
    """One session that counts, and what its counter must say."""

    def __init__(self, session: RemoteSession, owner: FleetNode, connections: Sequence[HttpConnection]) -> None:
        """`connections`: to the nodes that live on."""
        self.owner = owner
        self._session = session
        self._connections = connections
        self._turns = count()
        self._acknowledged = 0
        self._unknown = 0

    async def increment(self) -> Outcome:
        """One call, at the next node in turn.

        Raises:
            Refused: An answer that no fault explains, or a count that has lost or doubled a change.
        """
        connection = self._connections[next(self._turns) % len(self._connections)]
        answer = await connection.send(self._session.request(_CALL.body()))
        reply = answer.reply()
        if "error" in reply:
            return self._failed(answer, reply["error"])
        value: int = reply["result"]["structuredContent"]["result"]
        # One call of a session at a time: what was acknowledged has run once, what is unknown once or not at all.
        if not self._acknowledged < value <= self._acknowledged + self._unknown + 1:
            raise Refused(
                f"a session counted {value} after {self._acknowledged} acknowledged changes and {self._unknown} unknown"
            )
        self._acknowledged, self._unknown = value, 0
        return "answered"

    def _failed(self, answer: Answer, error: dict[str, Any]) -> Outcome:
        if answer.status not in (200, 503):
            raise Refused(f"status {answer.status}: {answer.body[:300]!r}")
        data: dict[str, Any] = error.get("data") or {}
        if data.get("outcome") == "unknown":
            self._unknown += 1
            return "unknown"
        return "refused"


_CALL = PreparedCall(INCREMENT, {})


async def _round(nodes: Fleet, victim: FleetNode, sessions: int, spread: float, end: Any) -> Round:
    """End `victim` and call each of its sessions once, at the other nodes in turn."""
    found = Round()
    others = [node for node in nodes.nodes if node is not victim]
    async with _clients([victim] * sessions, others) as clients, _clients(nodes.nodes * (OTHERS // 3), others) as load:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for client in load:
                tasks.create_task(_light_load(client, victim, over, found))
            await asyncio.sleep(0.5)
            end()
            async with asyncio.TaskGroup() as next_calls:
                for number, client in enumerate(clients):
                    next_calls.create_task(_next_call(client, number * spread / sessions, found))
            over.set()
        # Changes of sessions whose outcome was unknown are accounted for now.
        for client in (*clients, *load):
            if await client.increment() != "answered":
                raise Refused("a session does not answer although its new owner is well")
    return found


async def _next_call(client: Client, delay: float, found: Round) -> None:
    await asyncio.sleep(delay)
    started = time.perf_counter()
    outcome = await client.increment()
    found.milliseconds.append((time.perf_counter() - started) * 1000)
    _count(found, outcome)


async def _light_load(client: Client, victim: FleetNode, over: asyncio.Event, found: Round) -> None:
    while not over.is_set():
        started = time.perf_counter()
        outcome = await client.increment()
        if client.owner is not victim:
            found.others.append((time.perf_counter() - started) * 1000)
        _count(found, outcome)
        await asyncio.sleep(PACE)


def _count(found: Round, outcome: Outcome) -> None:
    found.unknown += outcome == "unknown"
    found.refused += outcome == "refused"


@asynccontextmanager
async def _clients(owners: Sequence[FleetNode], living: Sequence[FleetNode]) -> AsyncGenerator[list[Client]]:
    """A client with a session at each of `owners`, connected to all of `living`, which it has called there before."""
    opened: list[HttpConnection] = []
    clients: list[Client] = []
    entrances = {node: await node.connect() for node in set(owners)}
    try:
        for owner in owners:
            session = await open_session(entrances[owner])
            connections = [await node.connect() for node in living]
            opened += connections
            client = Client(session, owner, connections)
            for _ in living:
                if await client.increment() != "answered":
                    raise Refused("a session does not answer although all nodes are well")
            clients.append(client)
        yield clients
    finally:
        for connection in (*opened, *entrances.values()):
            connection.close()
