"""`understudy bench scale`: how a cluster's own needs grow with its nodes and sessions.

A model that is run on one machine: what can be measured here is, at sizes that fit, and the rest is extrapolated from
the largest measured size in proportion to what it depends on. Each figure says which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.cluster.ownership import MAX_HINTS
from .directory_size import DirectorySize, directory_sizes
from .local_nats import local_nats
from .measure import Effort, Progress
from .memory import probe
from .quiet_nodes import Quiet, watch_quiet_nodes
from .report import Basis, Report, Scenario, Series

__all__ = ["bench_scale"]

LEASE = 3.0
"""The default: each node renews its lease every second."""
MB = 1e6
NODES = (3, 10, 30, 100, 300, 1_000)
SESSIONS = (10_000, 100_000, 1_000_000, 10_000_000)
CLUSTERS = ((3, 10_000), (10, 100_000), (100, 1_000_000), (1_000, 10_000_000), (1_000, 10_000), (3, 10_000_000))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far is measured."""

    directory: tuple[int, ...] = (10_000, 100_000)
    nodes: tuple[int, ...] = (3, 10, 30)
    held: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    hints: tuple[int, ...] = (10_000, MAX_HINTS)
    peers: tuple[int, ...] = (100, 999)
    lease: float = LEASE
    window: float = 6.0
    """Seconds for which messages are counted in each round."""


QUICK = Sizes(
    directory=(20, 200), nodes=(2, 3), held=(500, 2_000), hints=(500, 2_000), peers=(10, 50), lease=0.5, window=0.5
)


async def bench_scale(effort: Effort, progress: Progress) -> Report:
    """Measure and extrapolate; the rounds are windows of counted messages, and fresh processes for each table."""
    sizes = QUICK if effort.quick else Sizes()
    progress(f"directory: writing {sizes.directory[-1]:,} entries")
    # The sizes do not depend on when a write reaches the disk, but the time to write a hundred thousand does.
    async with local_nats(sync_interval="2m") as nats:
        directories = await directory_sizes(nats, list(sizes.directory))
    quiet: dict[int, list[Quiet]] = {}
    for nodes in sizes.nodes:
        progress(f"{nodes} nodes that nobody uses")
        # A server of its own each: what others left behind is not theirs.
        async with local_nats() as nats:
            quiet[nodes] = await watch_quiet_nodes(
                nats, nodes, lease=sizes.lease, windows=effort.rounds, seconds=sizes.window
            )
    tables = {
        "held": await _tables("held", sizes.held, effort, progress),
        "hints": await _tables("hints", sizes.hints, effort, progress),
        "peers": await _tables("peers", sizes.peers, effort, progress),
    }
    per_second = LEASE / sizes.lease
    scenarios = (
        _directory(directories),
        *_quiet(quiet, sizes.lease),
        _memory(tables),
        _clusters(directories[-1], quiet[sizes.nodes[-1]], sizes.nodes[-1], per_second, tables),
    )
    return Report("scale", scenarios, effort.quick)


Tables = dict[int, tuple[float, ...]]
"""Resident bytes of a table, one figure for each round, by its number of entries."""


async def _tables(kind: str, entries: tuple[int, ...], effort: Effort, progress: Progress) -> Tables:
    found: dict[int, list[float]] = {count: [] for count in entries}
    for number in range(effort.rounds):
        progress(f"memory of {kind}, round {number + 1}/{effort.rounds}")
        for count in entries:
            found[count].append((await probe("table", kind=kind, entries=count))["bytes"])
    return {count: tuple(rounds) for count, rounds in found.items()}


def _directory(sizes: list[DirectorySize]) -> Scenario:
    """Grows with the sessions that are, or were lately, awake; not with the nodes."""
    series: list[Series] = []
    largest = sizes[-1]
    for attribute, what in (("stored", "messages"), ("on_disk", "disk"), ("resident", "nats-server's memory")):
        for size in sizes:
            bytes_: int = getattr(size, attribute)
            series.append(_measured(f"{what}, {size.entries:,} sessions", "MB", (bytes_ / MB,)))
        each: float = getattr(largest, attribute) / largest.entries
        series += [
            _extrapolated(f"{what}, {count:,} sessions", "MB", (each * count / MB,))
            for count in SESSIONS
            if count > largest.entries
        ]
    series += [
        _measured("messages, of each session", "bytes/session", tuple(it.stored / it.entries for it in sizes[-1:])),
        _measured("disk, of each session", "bytes/session", tuple(it.on_disk / it.entries for it in sizes[-1:])),
    ]
    return Scenario("directory in NATS: one entry for each session, any number of nodes", tuple(series))


def _quiet(quiet: dict[int, list[Quiet]], lease: float) -> tuple[Scenario, ...]:
    """Grows with the nodes, not with the sessions: nothing per session is ever renewed."""
    most = max(quiet)
    published: list[Series] = []
    delivered: list[Series] = []
    node_cpu: list[Series] = []
    nats_cpu: list[Series] = []
    for nodes in sorted({*quiet, *(each for each in NODES if each > most)}):
        rounds = quiet.get(nodes) or [_grown(each, most, nodes) for each in quiet[most]]
        add = _measured if nodes in quiet else _extrapolated
        name = f"{nodes:,} nodes"
        published.append(add(f"published, {name}", "messages/s", tuple(it.published for it in rounds)))
        delivered.append(add(f"delivered to all, {name}", "messages/s", tuple(it.delivered for it in rounds)))
        node_cpu.append(add(f"processor time of a node, {name}", "ms/s", tuple(it.node_cpu * 1e3 for it in rounds)))
        nats_cpu.append(add(f"... of nats-server, {name}", "ms/s", tuple(it.nats_cpu * 1e3 for it in rounds)))
    title = f"background, lease {lease:g} s, any number of idle sessions"
    return (
        Scenario(f"{title}: messages", (*published, *delivered)),
        Scenario(f"{title}: processor time", (*node_cpu, *nats_cpu)),
    )


def _grown(measured: Quiet, nodes: int, wanted: int) -> Quiet:
    """As if `wanted` nodes renewed: each renewal is published once, acknowledged once, and heard by all."""
    more = wanted / nodes
    heard = more * (wanted + 1) / (nodes + 1)
    return Quiet(
        measured.published * more,
        measured.delivered * heard,
        measured.node_cpu * heard / more,
        measured.nats_cpu * heard,
    )


def _memory(tables: dict[str, Tables]) -> Scenario:
    """What a node keeps in memory for being one of many; its live sessions themselves are `bench memory`'s."""
    what = {"held": "sessions it owns", "hints": "hints to others' sessions", "peers": "other nodes"}
    series: list[Series] = []
    for kind, table in tables.items():
        most = max(table)
        for count, rounds in table.items():
            series.append(_measured(f"{what[kind]}, {count:,}", "MB", tuple(it / MB for it in rounds)))
        if kind == "held":
            series += [
                _extrapolated(f"{what[kind]}, {count:,}", "MB", tuple(it / most * count / MB for it in table[most]))
                for count in SESSIONS
                if count > most
            ]
        series.append(_measured(f"{what[kind]}, each of {most:,}", "bytes", tuple(it / most for it in table[most])))
    return Scenario(f"memory of one node's tables (hints are bounded at {MAX_HINTS:,})", tuple(series))


def _clusters(
    directory: DirectorySize, quiet: list[Quiet], nodes: int, per_second: float, tables: dict[str, Tables]
) -> Scenario:
    """All of it for whole clusters whose sessions are all awake and evenly spread."""
    each = {kind: [it / max(table) for it in table[max(table)]] for kind, table in tables.items()}
    series: list[Series] = []
    for cluster, sessions in CLUSTERS:
        name = f"{cluster:,} nodes, {sessions:,} sessions"
        owned = sessions / cluster
        hints = min(sessions - owned, MAX_HINTS)
        memory = tuple(
            (held * owned + hint * hints + peer * (cluster - 1)) / MB
            for held, hint, peer in zip(each["held"], each["hints"], each["peers"], strict=True)
        )
        messages = tuple(_grown(it, nodes, cluster).delivered / per_second for it in quiet)
        series += [
            _extrapolated(f"{name}: directory", "MB", (directory.stored / directory.entries * sessions / MB,)),
            _extrapolated(f"{name}: messages to each node", "messages/s", tuple(it / cluster for it in messages)),
            _extrapolated(f"{name}: tables of each node", "MB", memory),
        ]
    return Scenario("whole clusters, all sessions awake and evenly spread", tuple(series))


def _measured(name: str, unit: str, rounds: tuple[float, ...]) -> Series:
    basis: Basis = "measured"
    return Series(name, unit, rounds, basis=basis)


def _extrapolated(name: str, unit: str, rounds: tuple[float, ...]) -> Series:
    basis: Basis = "extrapolated"
    return Series(name, unit, rounds, basis=basis)
