"""Tenants at three times their limits at three nodes, while nodes die or hang and the counters fail or hang."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import nats
from chaos.cluster import ChaosCluster, ChaosNode
from chaos.customers import Came, Customer, Outcome, make_customers, most_at_once, most_in
from chaos.http import fetch
from chaos.scale import Scale

__all__ = ["play_limits"]

TARGET = "tests/chaos/limits_server.py:server"
TIMES = 3
"""As much as the limit is asked for."""
WITHIN = 0.05
"""As exactly limits are held: done-when of whoever bought them."""
RACED = 10
"""Of calls a minute, for which all nodes race: too few for a share in hand."""
OUTAGE = 10
"""Calls a minute while the counters are away."""
DECIDED = 1.0
"""Seconds in which a call is let through or refused while the counters are away."""
BACK = 6.0
"""Seconds in which all is as before when they are back: they are looked for every 4 s, and a look takes up to 2."""


class _Play:
    def __init__(self, cluster: ChaosCluster, customers: dict[str, Customer], scale: Scale) -> None:
        self.cluster = cluster
        self.customers = customers
        self.scale = scale
        self.uses = scale.limit_uses
        self.nodes = [node.name for node in cluster.nodes]
        self.numbers: dict[str, Any] = {}
        self.faults: list[str] = []

    def judge(self, what: str, least: float, found: float, most: float) -> None:
        """Note what was found, and whether it is within its bounds."""
        self.numbers[what] = found
        if not least <= found <= most:
            self.faults.append(f"{what}: {found}, where {least:g} to {most:g} should be")

    def expect(self, what: str, outcomes: Sequence[Outcome], *allowed: Came) -> None:
        """Complain of every outcome that is none of `allowed`."""
        wrong = [each for each in outcomes if each.came not in allowed]
        self.faults += [
            f"{what}: {each.came.value} after {each.ended - each.began:.2f} s: {each.said}" for each in wrong[:5]
        ]

    # Calls a minute

    async def rate(self, tool: str) -> None:
        """Three times the limit, evenly, from sessions and without, each request at the next node."""
        customer = self.customers["rates"]
        limit, seconds = self.scale.limit, self.scale.limit_seconds
        sessions = [(await customer.open(node)).value for node in self.nodes]
        calls = round(TIMES * limit * max(1.0, seconds / 60.0))
        outcomes: list[Outcome] = []
        began = time.monotonic()

        async def call(number: int) -> None:
            session = sessions[number // 6 % 3] if number % 2 else None
            outcomes.append(await customer.call(self.nodes[number % 3], tool, session=session))

        async with asyncio.TaskGroup() as tasks:
            for number in range(calls):
                await asyncio.sleep(began + seconds * number / calls - time.monotonic())
                tasks.create_task(call(number))
        self.expect(tool, outcomes, Came.DONE, Came.LIMITED)
        self.numbers[f"{tool}: asked, in seconds"] = [calls, round(time.monotonic() - began, 1)]
        until = 60.0 if seconds > 60.0 else seconds + 1.0
        first = sum(each.came is Came.DONE and each.ended - began <= until for each in outcomes)
        self.judge(f"{tool}: allowed in the first minute of {limit}", limit * (1 - WITHIN), first, limit)
        self.judge(f"{tool}: most in any minute of {limit}", 0, most_in(60.0, outcomes), limit)

    async def races(self) -> None:
        """All nodes are asked at one moment for more than is left."""
        found: Counter[int] = Counter()
        for number in range(self.scale.limit_races):
            customer = self.customers[f"race-{number}"]
            outcomes = await asyncio.gather(
                *(customer.call(node, "change") for _ in range(RACED) for node in self.nodes)
            )
            self.expect("a race", outcomes, Came.DONE, Came.LIMITED)
            found[sum(each.came is Came.DONE for each in outcomes)] += 1
        self.numbers[f"races for {RACED} calls: how often so many were let through"] = dict(found)
        if set(found) - {RACED}:
            self.faults.append(f"{RACED} calls at once were to be let through, not {dict(found)}")

    # What is in use

    async def in_flight(self) -> None:
        """Three times as many callers as may be in flight, each again and again."""
        customer = self.customers["in-flight"]
        outcomes: list[Outcome] = []
        until = time.monotonic() + self.scale.limit_seconds / 3

        async def work(number: int) -> None:
            while time.monotonic() < until:
                outcome = await customer.call(self.nodes[number % 3], "hold", {"seconds": 0.4})
                outcomes.append(outcome)
                if outcome.came is not Came.DONE:
                    await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as tasks:
            for number in range(TIMES * self.uses):
                tasks.create_task(work(number))
        self.expect("in flight", outcomes, Came.DONE, Came.LIMITED)
        self.judge(f"in flight at once, of {self.uses}", self.uses * (1 - WITHIN), most_at_once(outcomes), self.uses)

    async def sessions(self) -> None:
        """Three times as many are opened as there may be; one that ends makes room for one."""
        customer = self.customers["sessions"]
        outcomes = await asyncio.gather(*(customer.open(self.nodes[n % 3]) for n in range(TIMES * self.uses)))
        self.expect("sessions", outcomes, Came.DONE, Came.LIMITED)
        opened = [each.value for each in outcomes if each.came is Came.DONE]
        self.judge(f"sessions, of {self.uses}", self.uses * (1 - WITHIN), len(opened), self.uses)
        for number, session in enumerate(opened[:3]):
            await customer.end(self.nodes[number], session)
        again: list[Outcome] = []

        async def full_again() -> bool:
            again.append(await customer.open(self.nodes[len(again) % 3]))
            return sum(each.came is Came.DONE for each in again) >= 3

        await self._within("three sessions more, after three had ended", BACK, full_again)
        more = await asyncio.gather(*(customer.open(node) for node in self.nodes))
        self.judge("... and no fourth", 0, sum(each.came is Came.DONE for each in more), 0)

    async def streams(self) -> None:
        """Three times as many as may be open; then those of a node that dies come back."""
        customer = self.customers["streams"]
        sessions = [
            each.value
            for each in await asyncio.gather(*(customer.open(self.nodes[n % 3]) for n in range(TIMES * self.uses)))
        ]
        outcomes = await asyncio.gather(
            *(customer.listen(self.nodes[(n + 1) % 3], session) for n, session in enumerate(sessions))
        )
        self.expect("streams", outcomes, Came.DONE, Came.LIMITED)
        self.judge(
            f"open streams, of {self.uses}",
            self.uses * (1 - WITHIN),
            sum(each.came is Came.DONE for each in outcomes),
            self.uses,
        )
        customer.hang_up()

        async def free() -> bool:
            outcome = await customer.listen(self.nodes[0], sessions[0])
            return outcome.came is Came.DONE

        await self._within("a stream, after all were left", BACK, free)
        customer.hang_up()

    # Nodes that die, and nodes that hang

    async def lost(self, what: str, lose: Callable[[ChaosNode], Awaitable[None]]) -> None:
        """A node with all the permits there are is gone; the others have them once its lease is over."""
        customer = self.customers["in-flight"]
        victim = self.cluster.nodes[2]
        loop = asyncio.get_running_loop()
        calls = [customer.call(victim.name, "hold", {"seconds": 60.0}) for _ in range(self.uses)]
        holding = [loop.create_task(call) for call in calls]
        try:
            # The others give back what they had in hand.
            await asyncio.sleep(3.0)
            # Held long enough that none of the few that are left serves two.
            outcomes = await asyncio.gather(
                *(customer.call(self.nodes[n % 2], "hold", {"seconds": 0.5}) for n in range(self.uses // 2))
            )
            taken = sum(each.came is Came.LIMITED for each in outcomes)
            half = self.uses // 2
            self.judge(f"refused of {half}, while the node that {what} has nearly all permits", half - 8, taken, half)
            await lose(victim)
            probe: list[Outcome] = []

            async def all_free() -> bool:
                probe[:] = await asyncio.gather(
                    *(customer.call(self.nodes[n % 2], "hold", {"seconds": 0.5}) for n in range(self.uses - 4))
                )
                return all(each.came is Came.DONE for each in probe)

            await self._within(f"permits back from a node that {what}", self.cluster.lease + BACK, all_free)
            self.judge(f"in flight without the node that {what}", self.uses - 4, most_at_once(probe), self.uses)
        finally:
            for each in holding:
                each.cancel()
            await asyncio.gather(*holding, return_exceptions=True)

    async def node_dies(self) -> None:
        """kill -9."""

        async def kill(victim: ChaosNode) -> None:
            await victim.akill()

        await self.lost("died", kill)
        await self.cluster.nodes[2].astart()

    async def node_hangs(self) -> None:
        """SIGSTOP for longer than its lease: it comes back as a stranger, with calls that ran as long as it stood."""
        victim = self.cluster.nodes[2]

        async def pause(victim: ChaosNode) -> None:
            victim.pause()

        try:
            await self.lost("hangs", pause)
        finally:
            victim.resume()
        customer = self.customers["in-flight"]

        async def serves() -> bool:
            outcomes = await asyncio.gather(
                *(customer.call(self.nodes[n % 3], "hold", {"seconds": 0.5}) for n in range(self.uses - 6))
            )
            return all(each.came is Came.DONE for each in outcomes)

        await self._within("all three nodes have all permits again", self.cluster.lease + 2 * BACK, serves)

    # Counters that are away

    async def frozen(self) -> None:
        """SIGSTOP of nats-server: the first node refuses, the others count alone; then all is as before."""
        strict, *lenient = self.nodes
        customer = self.customers["outage"]
        self.cluster.nats.pause()
        try:
            refused = await asyncio.gather(*(customer.call(strict, "change") for _ in range(3)))
            alone = [await asyncio.gather(*(customer.call(n, "change") for _ in range(OUTAGE + 5))) for n in lenient]
            away = [await self._metric(node, "limits_counters_away") for node in self.nodes]
            counting_alone = [await self._metric(node, "limits_counting_alone") for node in self.nodes]
        finally:
            self.cluster.nats.resume()
        resumed = time.monotonic()
        self.expect("closed, counters hang", refused, Came.UNCHECKED)
        for outcomes in alone:
            self.expect("open, counters hang", outcomes, Came.DONE, Came.LIMITED)
            through = sum(each.came is Came.DONE for each in outcomes)
            self.judge(f"open, counters hang: through at one node, of {OUTAGE}", OUTAGE, through, OUTAGE)
        slowest = max(each.ended - each.began for outcomes in (refused, *alone) for each in outcomes)
        self.judge("counters hang: slowest decision, seconds", 0, round(slowest, 2), DECIDED)
        if away != [1, 1, 1] or counting_alone != [0, 1, 1]:
            self.faults.append(f"the metrics say {away} and {counting_alone} while the counters hang")
        await self._back("hung", resumed)
        # What the two that counted alone let through counts for all: nothing is left at the third.
        await asyncio.sleep(2.0)
        outcomes = [await customer.call(strict, "change") for _ in range(3)]
        self.expect("what was spent alone is told afterwards", outcomes, Came.LIMITED)

    async def deleted(self) -> None:
        """The counters' bucket is deleted under a live cluster: it is made again, and nobody is refused for long."""
        customer = self.customers["deleted"]
        before = [await customer.call(node, "change") for node in self.nodes]
        self.expect("before the counters are deleted", before, Came.DONE)
        connection = await nats.connect(f"nats://127.0.0.1:{self.cluster.nats.port}")
        try:
            assert await connection.jetstream().delete_stream(f"KV_understudy_{self.cluster.name}_counters")
        finally:
            await connection.close()
        deleted = time.monotonic()
        strict, *lenient = self.nodes
        outcomes = [await customer.call(node, "change") for node in lenient]
        self.expect("open, counters deleted", outcomes, Came.DONE)
        slowest = max(each.ended - each.began for each in outcomes)
        self.judge("counters deleted: slowest decision, seconds", 0, round(slowest, 2), DECIDED)

        async def through() -> bool:
            outcome = await customer.call(strict, "change")
            self.expect("closed, counters deleted", [outcome], Came.DONE, Came.UNCHECKED)
            return outcome.came is Came.DONE

        await self._within("closed, counters deleted: seconds until a call goes through", BACK, through)
        await self._back("deleted", deleted)

        async def refused() -> bool:
            outcome = await customer.call(lenient[0], "change")
            return outcome.came is Came.LIMITED

        await self._within("the limit holds after the counters were deleted", BACK, refused)

    async def crashed(self) -> None:
        """kill -9 of nats-server, whose memory has the counters: what is open still counts."""
        customer = self.customers["streams"]
        opened = await asyncio.gather(*(customer.open(self.nodes[0]) for _ in range(self.uses)))
        more = await asyncio.gather(*(customer.open(self.nodes[1]) for _ in range(3)))

        async def all_open() -> bool:
            customer.hang_up()
            await asyncio.sleep(0.5)
            outcomes = await asyncio.gather(*(customer.listen(self.nodes[0], each.value) for each in opened))
            return all(each.came is Came.DONE for each in outcomes)

        await self._within("all streams there may be, at one node", BACK, all_open)
        await self.cluster.crash_nats()
        crashed = time.monotonic()
        await self._back("lost with nats-server", crashed)
        await asyncio.sleep(2.5)
        outcomes = await asyncio.gather(*(customer.listen(self.nodes[1], each.value) for each in more))
        self.expect("open streams after nats-server was killed", outcomes, Came.LIMITED)
        customer.hang_up()

    async def _back(self, what: str, since: float) -> None:
        async def are_back() -> bool:
            return not any([await self._metric(node, "limits_counters_away") for node in self.nodes])

        await self._within(f"counters that were {what} are back", BACK, are_back, since)

    async def _metric(self, node: str, name: str) -> float | None:
        answer = await fetch(self.cluster.ports[node], "/metrics")
        lines = [] if answer is None else answer.body.decode().splitlines()
        found = [line for line in lines if line.startswith(f"understudy_{name}")]
        return float(found[0].rpartition(" ")[2]) if found else None

    async def _within(
        self, what: str, seconds: float, happened: Callable[[], Awaitable[bool]], since: float | None = None
    ) -> None:
        began = time.monotonic() if since is None else since
        while not await happened():
            if time.monotonic() - began > seconds:
                self.faults.append(f"{what}: not within {seconds:g} s")
                return
            await asyncio.sleep(0.1)
        self.numbers[what] = round(time.monotonic() - began, 2)


async def play_limits(directory: Path, scale: Scale) -> tuple[dict[str, Any], list[str]]:
    """Numbers and faults."""
    keys, limits = directory / "keys.toml", directory / "limits.toml"
    limits.write_text(
        "[default]\n"
        f"[plans.rates]\ncalls_per_minute = {scale.limit}\nread_only_calls_per_minute = {scale.limit}\n"
        f"[plans.race]\ncalls_per_minute = {RACED}\n"
        f"[plans.uses]\ncalls_in_flight = {scale.limit_uses}\nsessions = {scale.limit_uses}\n"
        f"[plans.streams]\nstreams = {scale.limit_uses}\n"
        f"[plans.outage]\ncalls_per_minute = {OUTAGE}\n"
    )
    plans = {f"race-{number}": "race" for number in range(scale.limit_races)}
    plans |= {"rates": "rates", "in-flight": "uses", "sessions": "uses", "streams": "streams"}
    plans |= {"outage": "outage", "deleted": "outage"}
    # The store is not the NATS that hangs: what is refused, the counters have refused.
    store = "sqlite" if scale.store == "nats" else scale.store
    cluster = ChaosCluster(
        directory,
        target=TARGET,
        store=store,
        serve=("--api-keys", str(keys), "--limits", str(limits)),
        per_node={"node-1": ("--when-counters-fail", "closed")},
    )
    customers = make_customers(plans, keys)
    async with cluster:
        play = _Play(cluster, customers, scale)
        for customer in customers.values():
            customer.ports = cluster.ports
        try:
            await play.races()
            await play.rate("change")
            await play.rate("look")
            await play.in_flight()
            await play.sessions()
            await play.streams()
            await play.frozen()
            await play.deleted()
            if scale.limit_losses:
                await play.crashed()
                await play.node_dies()
                await play.node_hangs()
        finally:
            for customer in customers.values():
                customer.close()
        # Nodes complain, rightly, of NATS while it is frozen.
        return play.numbers, play.faults + [line for line in cluster.complaints() if "Traceback" in line]
