"""any-node: limits over a real cluster, the same at a session's owner and at every other node."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import Client, initialize_params
from support.patience import PATIENCE
from understudy.runtime import Limits, SessionLimits
from understudy.runtime.limits import CountersUnavailable


def without_the_time(call: HTTPCall) -> tuple[int, Any]:
    """Status and body, but for how long to wait."""
    text = call.body.decode()
    return call.status, "".join(character for character in text if not character.isdigit())


async def until(happened: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await happened():
            await asyncio.sleep(0.05)


async def test_a_refusal_is_alike_at_owner_and_elsewhere_in_both_eras(nats_url: str) -> None:
    limits = Limits(calls_per_minute=3, read_only_calls_per_minute=1000, sessions=2)
    async with household(nats_url, 2, limits=limits) as (one, other):
        client = one.client()
        await client.open()
        elsewhere = other.same(client)
        assert one.owns(client.session)
        modern, modern_elsewhere = one.modern(), other.modern()
        handle = await modern.handle()
        assert await client.tool("increment") == 1
        assert await elsewhere.tool("increment") == 2
        answers = [await it.begin_tool("increment", id=99).answered() for it in (client, elsewhere)]
        assert without_the_time(answers[0]) == without_the_time(answers[1])
        assert answers[0].result["isError"]
        assert answers[0].result["content"][0]["text"].startswith("Rate limit exceeded: 3 calls/minute. Retry after ")
        by_handle = [
            await it.begin_tool("increment", {"session": handle}, id=99).answered() for it in (modern, modern_elsewhere)
        ]
        assert without_the_time(by_handle[0]) == without_the_time(by_handle[1])
        assert by_handle[0].result["content"][0]["text"].startswith("Rate limit exceeded: 3 calls/minute.")
        assert await client.tool("count") == await elsewhere.tool("count") == 2
        opening = [await it.client().ask("initialize", initialize_params(), id=99) for it in (one, other)]
        assert without_the_time(opening[0]) == without_the_time(opening[1])
        assert opening[0].status == 429
        assert opening[0].header("retry-after") is not None


async def test_three_nodes_share_every_limit_and_a_dead_one_gives_its_permits_back(nats_url: str) -> None:
    limits = Limits(calls_in_flight=4, streams=3, calls_per_minute=40)
    async with household(nats_url, 3, limits=limits, settings=lambda number: {"lease": 1.0}) as members:
        clients = [member.client() for member in members]
        for client in clients:
            await client.open()
        held = [client.begin_tool("watch") for client in clients] + [clients[0].begin_tool("watch")]
        for member, count in zip(members, (2, 1, 1), strict=True):
            async with asyncio.timeout(PATIENCE):
                while member.stage.running < count:
                    await asyncio.sleep(0.01)
        for client in clients:
            refused = await client.ask("tools/list")
            assert refused.status == 429
            assert "4 calls in flight" in refused.json["error"]["message"]
        for member in members:
            member.stage.go_on.set()
        for call in held:
            assert (await call.answered()).value == "watched"

        async def free() -> bool:
            return all([(await client.ask("tools/list")).status == 200 for client in clients])

        await until(free)
        streams = [await client.start("GET").started() for client in clients]
        assert [stream.status for stream in streams] == [200] * 3
        fourth = members[2].client()
        await fourth.open()
        assert (await fourth.send("GET")).status == 429
        # A node that dies takes its streams with it, and nobody hears it say so.
        _die(members[0])

        async def has_room() -> bool:
            stream = await fourth.start("GET").started()
            return stream.status == 200

        await until(has_room)


def _die(member: Member) -> None:
    """Renew the lease no more, and tell nobody anything."""
    cluster: Any = member.runtime.cluster
    node: Any = member.runtime._node
    node.limiter.usage.sharing.counters._inner = Mute()
    cluster.membership._renew = asyncio.Event().wait


class Mute:
    shared = True

    async def change(self, key: str, step: Any, lasting: float | None = None) -> Any:
        raise CountersUnavailable("this node is dead")


async def test_a_session_that_is_moved_to_and_fro_gains_no_more_than_each_nodes_own_count(nats_url: str) -> None:
    limits = Limits(per_session=SessionLimits(calls_per_minute=4))
    async with household(nats_url, 2, limits=limits) as (one, other):
        client = one.client()
        await client.open()
        counts = []
        for turn in range(4):
            here, there = (one, other) if turn % 2 == 0 else (other, one)
            assert here.owns(client.session)
            ran = 0
            for _ in range(6):
                call = await here.same(client).begin_tool("increment").answered()
                ran += not call.result.get("isError")
            counts.append(ran)
            cluster: Any = here.runtime.cluster
            await cluster.drain()
            cluster.undrain()
            assert await there.same(client).tool("count") == sum(counts)
        # What a node has counted it still knows when the session is back.
        assert counts == [4, 4, 0, 0]


async def test_calls_from_all_sides_are_counted_together(nats_url: str) -> None:
    limit = 120
    async with household(nats_url, 3, limits=Limits(calls_per_minute=limit)) as members:
        clients: list[Client] = []
        for member in members:
            client = member.client()
            await client.open()
            clients += [client, *(other.same(client) for other in members if other is not member)]
        outcomes: Counter[bool] = Counter()
        began = time.monotonic()

        async def work(client: Client, calls: int) -> None:
            for _ in range(calls):
                call = await client.begin_tool("number", {"what": "1"}).answered()
                outcomes[bool(call.result.get("isError"))] += 1

        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(work(client, 40))
        room = limit * (1 + (time.monotonic() - began) // 60.0)
        assert limit - 3 * (limit // 20) <= outcomes[False] <= room
        assert outcomes.total() == 360
        refused = [member.runtime.stats()["limits_refused_calls_per_minute_total"] for member in members]
        assert sum(refused) == outcomes[True]
