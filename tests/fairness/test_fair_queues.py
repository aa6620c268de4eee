"""Fair queues in a node: at the edge, over the link, and with a real crowd of requests."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from cluster.household import household
from edge.call import HTTPCall
from edge.client import Client, hosting, hosting_modern
from edge.server import make_server
from starlette.requests import Request
from understudy.runtime import ConfigurationError, Fairness, Runtime, TenantContext
from understudy.runtime.telemetry.asker import ASKER


def by_name(request: Request) -> TenantContext:
    name = request.headers["authorization"].removeprefix("Bearer ")
    return TenantContext(name, name)


async def two(client: Client) -> tuple[Client, Client]:
    """A session of each of two tenants."""
    quiet, loud = client.twin(authorization="Bearer quiet"), client.twin(authorization="Bearer loud")
    for each in (quiet, loud):
        await each.open()
    return quiet, loud


def watched(calls: list[HTTPCall], order: list[str], name: str) -> list[asyncio.Task[HTTPCall]]:
    async def each(call: HTTPCall) -> HTTPCall:
        await call.answered()
        order.append(name)
        return call

    return [asyncio.get_running_loop().create_task(each(call)) for call in calls]


async def test_one_call_beside_three_hundred_of_another_tenant_is_answered_among_the_first() -> None:
    async with hosting(make_server(), tenants=by_name) as client:
        quiet, loud = await two(client)
        order: list[str] = []
        crowd = watched([loud.begin_tool("increment") for _ in range(300)], order, "loud")
        calls = watched([quiet.begin_tool("increment")], order, "quiet")
        answered = await asyncio.gather(*crowd, *calls)
        assert order.index("quiet") < 40
        assert Counter(call.status for call in answered) == {200: 301}
        stats = client.runtime.stats()
        assert stats["admission_waited_total"] > 200
        assert stats["admission_waiting"] == 0


@pytest.mark.parametrize("crowd", [40, 400])
async def test_what_a_request_finds_before_it_is_the_rest_of_one_call(
    crowd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: Counter[str] = Counter()
    run = asyncio.Handle._run

    def counted(handle: asyncio.Handle) -> None:
        tenant = handle._context.get(ASKER)
        if tenant is not None:
            steps[tenant.tenant] += 1
        run(handle)

    async with hosting(make_server(), tenants=by_name) as client:
        quiet, loud = await two(client)
        await quiet.tool("increment")
        monkeypatch.setattr(asyncio.Handle, "_run", counted)
        calls = [loud.begin_tool("increment") for _ in range(crowd)]
        await calls[15].answered()
        found: list[int] = []
        for _ in range(3):
            before = steps["loud"]
            await quiet.tool("increment")
            found.append(steps["loud"] - before)
            await calls[len(found) * 5 + 15].answered()
        for call in calls:
            await call.answered()
        # A call's own steps are its beginning and its end, and the session's turn.
        alone = steps["loud"] / crowd
        assert client.runtime.stats()["admission_waited_total"] > crowd / 2
        assert max(found) <= 1.5 * alone


async def test_first_come_first_served_is_there_for_who_wants_it() -> None:
    async with hosting(make_server(), tenants=by_name, fairness="off") as client:
        quiet, loud = await two(client)
        order: list[str] = []
        crowd = watched([loud.begin_tool("increment") for _ in range(100)], order, "loud")
        await asyncio.gather(*crowd, *watched([quiet.begin_tool("increment")], order, "quiet"))
        assert "admission_waiting" not in client.runtime.stats()


async def test_without_tenants_nobody_queues() -> None:
    async with hosting(make_server()) as client:
        assert "admission_waiting" not in client.runtime.stats()


async def test_what_does_not_fit_the_queue_gets_429_says_when_to_come_back_and_runs_not() -> None:
    async with hosting(make_server(), tenants=by_name, fairness=Fairness(waiting_per_tenant=5)) as client:
        quiet, loud = await two(client)
        crowd = [loud.begin_tool("increment") for _ in range(50)]
        answered = [await call.answered() for call in crowd]
        statuses = Counter(call.status for call in answered)
        assert set(statuses) == {200, 429}
        refused = next(call for call in answered if call.status == 429)
        assert refused.header("retry-after") == "1"
        assert refused.json["error"]["message"] == "Too many requests of this tenant wait for this node"
        assert await quiet.tool("increment") == 1
        assert await loud.tool("increment") == statuses[200] + 1


async def test_a_body_is_not_read_before_its_turn() -> None:
    async with hosting(make_server(), tenants=by_name) as client:
        _, loud = await two(client)
        crowd = [loud.begin_tool("increment") for _ in range(100)]
        asked: list[int] = []

        def body() -> object:
            asked.append(client.runtime.stats()["admission_waiting"])  # type: ignore[arg-type]
            yield loud.message("tools/call", {"name": "increment", "arguments": {}})

        last = loud.start(body=body())  # type: ignore[arg-type]
        await asyncio.gather(*(call.answered() for call in [*crowd, last]))
        assert last.status == 200
        assert asked == [0]


async def test_the_modern_era_queues_too() -> None:
    async with hosting_modern(make_server(), tenants=by_name) as client:
        quiet, loud = client.twin(authorization="Bearer quiet"), client.twin(authorization="Bearer loud")
        await quiet.ask("tools/list")
        order: list[str] = []
        crowd = watched([loud.begin("tools/list") for _ in range(200)], order, "loud")
        await asyncio.gather(*crowd, *watched([quiet.begin("tools/list")], order, "quiet"))
        assert order.index("quiet") < 40


async def test_requests_from_other_nodes_queue_at_the_owner(nats_url: str) -> None:
    async with household(nats_url, 2, tenants=lambda number: by_name) as (owner, other):
        quiet, loud = await two(owner.client())
        before = owner.runtime.stats()["admission_waited_total"]
        crowd = [other.same(loud).begin_tool("increment") for _ in range(100)]
        answered = [await call.answered() for call in [*crowd, other.same(quiet).begin_tool("increment")]]
        assert Counter(call.status for call in answered) == {200: 101}
        assert owner.runtime.stats()["admission_waited_total"] > before


def test_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="fairness is 'fair'"):
        Runtime(make_server(), tenants=by_name, fairness="fair")  # type: ignore[arg-type]
