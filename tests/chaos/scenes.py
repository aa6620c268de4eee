"""The scenes: each makes something happen to a cluster, and says what came of it in numbers and faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.deaf import ten_deaf_readers
from chaos.failover import after_a_hang, after_kills
from chaos.faults import FAULTS
from chaos.large import beside_large_ones
from chaos.limits import play_limits
from chaos.load import Fate, percentile
from chaos.rolling import rolling_restart
from chaos.route import go_through
from chaos.scale import Scale
from chaos.sleepers import peace, races
from chaos.store_servers import STORE_SERVERS
from chaos.storm import Storm
from chaos.streams import play_recitals, play_standing
from chaos.switching import numbers as switch_numbers
from chaos.switching import switch_stores
from chaos.tenants import play_tenants

__all__ = ["CALM", "SCENES", "CalmScene", "Scene", "Verdict", "calm_cluster"]

MAX_BODY = ("--max-body", "6MiB")
"""4 MiB of argument are a little more as a request."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scene came to; it is well if there are no faults."""

    numbers: dict[str, Any]
    faults: list[str]


Scene = Callable[[Path, Scale], Awaitable[Verdict]]
CalmScene = Callable[[ChaosCluster, Scale], Awaitable[Verdict]]


async def exact(cluster: ChaosCluster, scale: Scale) -> Verdict:
    """Increments sprayed over three nodes, both eras, nothing breaks: exact, and no call fails."""
    async with Storm(cluster, sessions=scale.sessions, workers=32) as storm:
        reckoning = await storm.rage(calls=scale.increments * 5 // 4)
    failed = [f"{call}" for call in reckoning.calls if call.value is None]
    stale = [f"{reckoning.stale_reads} reads were stale"] if reckoning.stale_reads else []
    return Verdict(reckoning.numbers(), reckoning.faults + failed + stale)


async def same_instant(directory: Path, scale: Scale) -> Verdict:
    """Two nodes asked for the same sleeping session at the same instant: one owner, and no call fails."""
    async with ChaosCluster(directory, store=scale.store, serve=("--idle-after", "0.2s")) as cluster:
        sessions = min(scale.sessions, scale.races // 2)
        found = await races(cluster, sessions=sessions, rounds=-(-scale.races // sessions))
        numbers = {"races": found.races, "faults": len(found.faults), "slowest_ms": round(found.slowest * 1000, 1)}
        return Verdict(numbers, found.faults + cluster.complaints())


async def storm(directory: Path, scale: Scale) -> Verdict:
    """Every sort of fault under load: acknowledged increments are there exactly once, every call gets an answer."""
    numbers: dict[str, Any] = {}
    faults: list[str] = []
    async with ChaosCluster(directory, lease=scale.storm_lease, store=scale.store, proxied=True) as cluster:
        # Where the store is the cluster's NATS, it has crashed with that.
        apart = {"store": scale.faults.get("nats", 1)} if cluster.store_server is not None else {}
        for name, times in (scale.faults | apart).items():
            async with Storm(cluster, sessions=scale.sessions, workers=24) as raging:

                async def strike(name: str = name, times: int = times, raging: Storm = raging) -> None:
                    await raging.more(50)
                    for number in range(times):
                        await FAULTS[name](raging, number)

                reckoning = await raging.rage(strike)
                numbers[f"{name} x{times}"] = reckoning.numbers()
                faults += [f"{name}: {fault}" for fault in reckoning.faults]
        faults += cluster.complaints()
    return Verdict(numbers, faults)


async def storm_with_store_apart(directory: Path, scale: Scale) -> Verdict:
    """The same where the store is not the NATS that is lost: nodes go on while their lease lasts."""
    return await storm(directory, replace(scale, store="nats-apart"))


async def failover(cluster: ChaosCluster, scale: Scale) -> Verdict:
    """The first call to a session of a node that was killed: p50 100 ms, p99 500 ms, whatever the lease."""
    found = await after_kills(cluster, kills=scale.kills, sessions=20)
    numbers = {f"lease {cluster.lease:g} s": found.numbers()}
    faults = found.faults
    failed = [call for call in found.calls if call.value is None]
    # One that left before NATS knew of the death may have arrived, for all that anybody knows.
    if len(failed) > len(found.calls) // 100 or any(call.fate is not Fate.UNKNOWN for call in failed):
        faults += [f"{call}" for call in failed]
    if percentile(found.seconds, 0.5) > 0.1 or percentile(found.seconds, 0.99) > 0.5:
        faults.append(f"too slow: {numbers}")
    return Verdict(numbers, faults)


async def failover_long_lease(directory: Path, scale: Scale) -> Verdict:
    """The same where the lease is ten times as long: it has no part in it."""
    async with ChaosCluster(directory, store=scale.store, lease="30s") as cluster:
        verdict = await failover(cluster, scale)
        return Verdict(verdict.numbers, verdict.faults + cluster.complaints())


async def hung_owner(cluster: ChaosCluster, scale: Scale) -> Verdict:
    """An owner that hangs costs at most its lease."""
    found = await after_a_hang(cluster)
    faults = [f"{call}" for call in found.calls if call.value is None]
    if max(found.seconds) > cluster.lease + 0.25:
        faults.append(f"it cost more than the lease of {cluster.lease:g} s: {found.numbers()}")
    return Verdict(found.numbers(), faults)


async def rolling(directory: Path, scale: Scale, *serve: str, **options: Any) -> Verdict:
    """Rolling restart under load, behind a balancer that follows `/readyz`: no call fails."""
    lame_duck = () if scale.rolling_calls >= 10_000 else ("--lame-duck", "0.7s")
    async with ChaosCluster(directory, store=scale.store, serve=(*lame_duck, *serve), **options) as cluster:
        reckoning = await rolling_restart(cluster, calls=scale.rolling_calls)
        return Verdict(reckoning.numbers(), reckoning.faults + reckoning.complaints)


async def rolling_two_versions(directory: Path, scale: Scale) -> Verdict:
    """The same where one node speaks the oldest link version, which is not sealed, and the others take that from it."""
    return await rolling(
        directory, scale, "--unsigned-contexts", "accept", per_node={"node-1": ("--link-version", "1")}
    )


async def switching(directory: Path, scale: Scale) -> Verdict:
    """The cluster moves from a SQLite file to another store under load, in three rolling restarts: exact."""
    if scale.route:
        return Verdict(*await go_through(directory, scale.route, sessions=scale.crowd))
    full = scale.sleepers > 100
    options = ("--idle-after", "0.5s", "--lame-duck", "2s" if full else "0.2s")
    async with ChaosCluster(directory, store="sqlite", nodes=3 if full else 2, serve=options) as cluster:
        old = cluster.store_arguments[1]
        server = STORE_SERVERS[scale.store][0](directory) if scale.store in STORE_SERVERS else None
        async with AsyncExitStack() as stack:
            new = f"{cluster.nats.url}/moved" if scale.store == "nats" else f"sqlite:///{directory}/moved.db"
            if server is not None:
                stack.push_async_callback(server.stop)
                await server.start()
                new = server.url
            done = await switch_stores(
                cluster,
                old,
                new,
                sessions=scale.sessions if full else 30,
                sleepers=scale.sleepers,
                workers=6 if full else 2,
                kills=full,
                too_early=full,
            )
        return Verdict(switch_numbers(done), done.faults + done.reckoning.faults + done.reckoning.complaints)


async def quiet(cluster: ChaosCluster, scale: Scale) -> Verdict:
    """Idle sessions, some with streams held elsewhere: no message beyond the leases, no more CPU than without."""
    without = await peace(cluster, sessions=0, streams=0, seconds=scale.idle_seconds, settle=0.5)
    idle = await peace(cluster, sessions=scale.idle_sessions, streams=scale.idle_streams, seconds=scale.idle_seconds)
    faults: list[str] = []
    # A renewal of each node more may fall into the time.
    if idle.messages > idle.expected + len(cluster.nodes):
        faults.append(f"{idle.messages} messages, where the leases are {idle.expected:.0f}")
    for node, cpu in idle.cpu.items():
        # CPU time is counted in hundredths of a second.
        if cpu > without.cpu[node] + 0.03 + 0.01 * idle.seconds:
            faults.append(f"{node} used {cpu:.2f} s of CPU with idle sessions, {without.cpu[node]:.2f} s without")
    return Verdict({"without": without.numbers(), "idle": idle.numbers()}, faults)


async def large(cluster: ChaosCluster, scale: Scale) -> Verdict:
    """8 MiB results and 4 MiB arguments across nodes: intact, and an echo beside ten of them is not held up."""
    found = await beside_large_ones(cluster, rounds=scale.large_rounds)
    faults = list(found.faults)
    if found.times(0.5) > 10:
        faults.append(f"an echo beside them took {found.times(0.5):.1f} times as long")
    return Verdict(found.numbers(), faults)


async def streams(directory: Path, scale: Scale) -> Verdict:
    """1,000 numbers on one stream while connections, owners and edges go: each exactly once, and one clear end."""
    runs = await play_recitals(directory, _seeds(scale), store=scale.store)
    return Verdict(runs.shown(), runs.faults)


async def standing(directory: Path, scale: Scale) -> Verdict:
    """Numbered updates on standalone streams in the same weather: each once, in order, or the client is told."""
    runs = await play_standing(directory, _seeds(scale), store=scale.store)
    return Verdict(runs.shown(), runs.faults)


async def tenants(directory: Path, scale: Scale) -> Verdict:
    """Many tenants' secrets in state, results, resources, events and lists while owners die: none at another tenant."""
    return Verdict(*await play_tenants(directory, scale, seed=scale.stream_seed))


async def limits(directory: Path, scale: Scale) -> Verdict:
    """Tenants at three times their limits while nodes die or hang, and the counters do: held within 5 %."""
    return Verdict(*await play_limits(directory, scale))


async def deaf(directory: Path, scale: Scale) -> Verdict:
    """Ten clients that never read what they asked for: the nodes' memory stays within bounds, and others are served."""
    store = "sqlite" if scale.store == "nats" else scale.store
    async with ChaosCluster(directory, store=store) as cluster:
        found = await ten_deaf_readers(cluster)
        faults = found.faults + cluster.complaints()
    # 8 MiB are kept of each stream, and as much again may be on its way into the log or in the heap's holes.
    if found.owner > 240 or found.edge > 80:
        faults.append(f"too much memory: {found.numbers()}")
    if found.slowest_echo > 5:
        faults.append(f"others were held up: {found.numbers()}")
    return Verdict(found.numbers(), faults)


def _seeds(scale: Scale) -> range:
    return range(scale.stream_seed, scale.stream_seed + scale.stream_runs)


CALM: dict[str, CalmScene] = {
    "quiet": quiet,
    "exact": exact,
    "large": large,
    "failover": failover,
    "hung-owner": hung_owner,
}
"""Scenes that can share one cluster."""


def _on_its_own(scene: CalmScene) -> Scene:
    async def play(directory: Path, scale: Scale) -> Verdict:
        async with calm_cluster(directory, store=scale.store) as cluster:
            verdict = await scene(cluster, scale)
            return Verdict(verdict.numbers, verdict.faults + cluster.complaints())

    play.__doc__ = scene.__doc__
    return play


def calm_cluster(directory: Path, store: str = "nats") -> ChaosCluster:
    """For `CALM`."""
    return ChaosCluster(directory, store=store, serve=MAX_BODY)


SCENES: dict[str, Scene] = {
    **{name: _on_its_own(scene) for name, scene in CALM.items()},
    "failover-long-lease": failover_long_lease,
    "same-instant": same_instant,
    "storm": storm,
    "storm-store-apart": storm_with_store_apart,
    "rolling": rolling,
    "rolling-two-versions": rolling_two_versions,
    "switching": switching,
    "streams": streams,
    "standing": standing,
    "deaf": deaf,
    "tenants": tenants,
    "limits": limits,
}
