"""A stream held at an edge goes on at the next owner, and its client notices nothing: real nodes, a real NATS.

A node is cut off from NATS from one moment to the next, which is what the others see of one that is killed; what it was
doing it may even go on with, as a node does that hangs for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import Client
from edge.server import Name, Stage, make_server
from edge.test_streams import progress
from mcp.server.mcpserver import Context, MCPServer
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.stores import Address

LARGE = 3 * 2**20


def numbered(stage: Stage) -> MCPServer:
    server = make_server(stage)

    @server.tool()
    async def tell(numbers: list[int], ctx: Context) -> str:
        """Say these on the standalone stream."""
        for number in numbers:
            await ctx.session.send_resource_updated(f"stage://{number}")
        return "told"

    @server.tool()
    async def report_much(ctx: Context) -> str:
        """Report two small things with a large one between them, and wait."""
        await ctx.report_progress(1)
        await ctx.report_progress(2, message="x" * LARGE)
        await ctx.report_progress(3)
        await stage.hold()
        return "reported"

    @server.tool()
    async def ask_late(ctx: Context) -> str:
        """Ask when something has been said already."""
        await ctx.report_progress(1)
        return str(await ctx.elicit("Who are you?", Name))

    return server


@asynccontextmanager
async def three_nodes(nats_url: str, **settings: Any) -> AsyncIterator[list[Member]]:
    async with household(nats_url, 3, server=numbered, settings=lambda _: settings) as nodes:
        yield nodes


@pytest.fixture
async def three(nats_url: str) -> AsyncIterator[list[Member]]:
    async with three_nodes(nats_url) as nodes:
        yield nodes


@pytest.fixture
async def mortal(nats_url: str) -> AsyncIterator[list[Member]]:
    """Three of which one may die: the others need not wait long for its lease to run out."""
    async with three_nodes(nats_url, lease=2.0) as nodes:
        yield nodes


async def cut_off(member: Member) -> None:
    """Have NATS lose this node, for good. What runs on it runs on."""
    cluster = member.runtime.cluster
    assert cluster is not None
    client: Any = cluster.connection
    client.options["allow_reconnect"] = False
    client._transport._io_writer.transport.abort()
    await until(lambda: not client.is_connected)


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(0.005)


def reattached(*nodes: Member) -> int:
    return sum(int(node.runtime.stats()["cluster_streams_reattached"]) for node in nodes)


def told(*calls: HTTPCall) -> list[int]:
    """The numbers that came on standalone streams, in order."""
    messages = [message for call in calls for message in call.messages]
    return [int(m["params"]["uri"][8:]) for m in messages if m["method"] == "notifications/resources/updated"]


def address(client: Client) -> Address:
    return Address("session", client.session or "")


async def opened(owner: Member) -> Client:
    client = owner.client()
    await client.open()
    return client


# A call whose owner goes


async def test_a_killed_owners_call_ends_with_all_that_was_sent_and_one_error(mortal: list[Member]) -> None:
    owner, second, third = mortal
    client = await opened(owner)
    call = second.same(client).begin_tool("report", {"before": 20, "after": 0}, token="t", id=11)
    await call.event(20)
    await cut_off(owner)
    await call.answered()
    assert progress(call) == list(range(1, 21))
    assert (call.reply["id"], call.failure["data"]) == (11, {"outcome": "unknown"})
    assert reattached(second) == 1
    assert owner.stage.runs == 1
    assert second.stage.runs + third.stage.runs == 0, "never-run-twice"
    assert await third.same(client).tool("increment") == 1


async def test_what_was_done_before_its_owner_went_reaches_the_client(mortal: list[Member]) -> None:
    """The turn ends at a node that nobody hears any more: its end is in the log."""
    owner, second, _ = mortal
    client = await opened(owner)
    call = second.same(client).begin_tool("report", {"before": 3, "after": 30}, token="t")
    await call.event(3)
    await cut_off(owner)
    owner.stage.go_on.set()
    await call.answered()
    assert progress(call) == list(range(1, 34))
    assert call.value == "reported"
    assert reattached(second) == 1


async def test_a_question_of_a_tool_that_died_is_withdrawn_before_the_error(mortal: list[Member]) -> None:
    owner, second, _ = mortal
    client = await opened(owner)
    call = second.same(client).begin_tool("ask_late", token="t")
    question = await call.message("elicitation/create")
    await cut_off(owner)
    await call.answered()
    withdrawn, end = call.messages[-2:]
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == question["id"]
    assert end["error"]["data"] == {"outcome": "unknown"}


async def test_a_call_of_which_the_log_knows_nothing_is_in_doubt(nats_url: str) -> None:
    settings: Any = {"settings": lambda _: {"lease": 1.0}, "event_log": "off"}
    async with household(nats_url, 2, server=numbered, **settings) as (owner, second):
        client = await opened(owner)
        call = second.same(client).begin_tool("report", {"before": 5, "after": 5}, token="t", id=11)
        await call.event(5)
        await cut_off(owner)
        await call.answered()
        owner.stage.go_on.set()
        assert progress(call) == list(range(1, 6))
        assert (call.reply["id"], call.failure["data"]) == (11, {"outcome": "unknown"})
        assert reattached(second) == 0


@pytest.mark.parametrize("after", [1, 50, 400, 1500])
async def test_numbers_that_are_on_their_way_when_the_owner_goes_come_once_and_in_order(
    mortal: list[Member], after: int
) -> None:
    owner, second, _ = mortal
    client = await opened(owner)
    owner.stage.go_on.set()
    call = second.same(client).begin_tool("report", {"before": 3000, "after": 0}, token="t")
    await call.event(after)
    await cut_off(owner)
    await call.answered()
    numbers = progress(call)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= after
    if "result" in call.reply:
        assert (call.value, len(numbers)) == ("reported", 3000)
    else:
        assert call.failure["data"] == {"outcome": "unknown"}
    ids = [event.id for event in call.events if event.data]
    assert len(set(ids)) == len(ids)
    assert reattached(second) == 1


class SlowReader(HTTPCall):
    """Takes the head of the response, and the rest when it is told to."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reads_on = asyncio.Event()

    async def _send(self, message: Any) -> None:
        if self.status and len(self.body) > 1000:
            await self.reads_on.wait()
        await super()._send(message)


async def test_half_a_large_event_makes_the_client_resume_and_have_it_whole(mortal: list[Member]) -> None:
    owner, second, third = mortal
    client = await opened(owner)
    params = {"name": "report_much", "arguments": {}, "_meta": {"progressToken": "t"}}
    mine = second.same(client)
    call = SlowReader(mine._scope("POST", {}, "/mcp"), client.message("tools/call", params))
    second.connections.start(call)
    await call.event(1)
    await until(lambda: len(call.body) > 1000)
    await cut_off(owner)
    owner.stage.go_on.set()
    await asyncio.sleep(0.3)
    call.reads_on.set()
    await call.done()
    assert not call.complete, "closed in the middle: what is half there is discarded"
    last = call.events[-1].id
    resumed = await third.same(client).send("GET", headers={"last-event-id": last})
    assert [*progress(call), *progress(resumed)] == [1, 2, 3]
    assert resumed.value == "reported"


async def test_a_client_that_leaves_while_its_owner_is_looked_for_is_let_go(mortal: list[Member]) -> None:
    owner, second, third = mortal
    client = await opened(owner)
    call = second.same(client).begin_tool("report", {"before": 5, "after": 5}, token="t")
    await call.event(5)
    last = call.events[-1].id
    await cut_off(owner)
    call.disconnect()
    await call.done()
    resumed = await third.same(client).send("GET", headers={"last-event-id": last})
    assert progress(resumed) == []
    assert resumed.failure["data"] == {"outcome": "unknown"}
    assert reattached(second, third) == 0


async def test_a_call_goes_on_at_its_owner_though_its_edge_has_died(mortal: list[Member]) -> None:
    owner, second, third = mortal
    client = await opened(owner)
    call = second.same(client).begin_tool("report", {"before": 10, "after": 10}, token="t")
    await call.event(10)
    await cut_off(second)
    resumed = third.same(client).start("GET", headers={"last-event-id": call.events[-1].id})
    await resumed.started()
    owner.stage.go_on.set()
    await resumed.answered()
    assert [*progress(call)[:10], *progress(resumed)] == list(range(1, 21))
    assert resumed.value == "reported"
    assert owner.stage.runs == 1


async def test_a_client_that_is_elsewhere_by_now_keeps_its_stream(three: list[Member]) -> None:
    """Its old connection, which nobody has closed, is ended by the owner and not taken back."""
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("report", {"before": 5, "after": 5}, token="t")
    await call.event(5)
    resumed = await third.same(client).start("GET", headers={"last-event-id": call.events[-1].id}).started()
    await call.answered()
    owner.stage.go_on.set()
    await resumed.answered()
    assert (progress(call), progress(resumed)) == ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert reattached(second, third) == 0


async def test_two_connections_of_one_stream_do_not_fight_when_the_owner_dies(mortal: list[Member]) -> None:
    owner, second, third = mortal
    client = await opened(owner)
    call = second.same(client).begin_tool("report", {"before": 5, "after": 5}, token="t")
    await call.event(5)
    newer = await third.same(client).start("GET", headers={"last-event-id": call.events[-1].id}).started()
    await call.answered()
    await cut_off(owner)
    await newer.answered()
    assert newer.failure["data"] == {"outcome": "unknown"}
    assert (reattached(second), reattached(third)) == (0, 1)


# A session that moves


async def drained(member: Member) -> None:
    cluster = member.runtime.cluster
    assert cluster is not None
    async with asyncio.timeout(PATIENCE):
        await cluster.drain()


async def test_a_call_that_waited_when_its_session_moved_runs_once_and_is_resumable_there(
    three: list[Member],
) -> None:
    owner, second, third = three
    client = await opened(owner)
    async with TaskOwner() as tasks:
        running = client.begin_tool("hold")
        await owner.stage.began.wait()
        waiting = second.same(client).begin_tool("report", {"before": 3, "after": 3}, token="t")
        await waiting.event(0)
        first_name = (waiting.events[0].id or "").rpartition("-")[0]
        draining = tasks.spawn(drained(owner))
        await asyncio.sleep(0.1)
        owner.stage.go_on.set()
        assert (await running.answered()).value == 1
        await waiting.event(4)
        await draining
    new_owner = next(node for node in three if node.stage.runs and node is not owner)
    assert owner.stage.runs + second.stage.runs + third.stage.runs == 2
    assert progress(waiting) == [1, 2, 3]
    assert (waiting.events[-1].id or "").rpartition("-")[0] != first_name
    new_owner.stage.go_on.set()
    assert (await waiting.answered()).value == "reported"
    assert progress(waiting) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_standalone_stream_held_elsewhere_follows_its_session(three: list[Member], times: int) -> None:
    owner, second, third = three
    client = await opened(owner)
    listening = await third.same(client).start("GET").started()
    await second.same(client).tool("tell", {"numbers": [1, 2, 3]})
    await until(lambda: len(told(listening)) == 3)
    for round in range(1, times + 1):
        now = next(node for node in three if node.owns(client.session))
        await drained(now)
        await second.same(client).tool("tell", {"numbers": [round * 10 + 1, round * 10 + 2]})
        cluster = now.runtime.cluster
        assert cluster is not None
        cluster.undrain()
    numbers = [1, 2, 3, 11, 12, 21, 22][: 3 + 2 * times]
    await until(lambda: len(told(listening)) == len(numbers))
    assert told(listening) == numbers
    assert not listening.returned
    listening.disconnect()
    await listening.done()


async def test_what_was_told_while_the_standalone_stream_moved_is_not_lost(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    listening = await third.same(client).start("GET").started()
    async with TaskOwner() as tasks:

        async def tell() -> None:
            for number in range(200):
                await second.same(client).tool("tell", {"numbers": [number]})

        telling = tasks.spawn(tell())
        await until(lambda: len(told(listening)) > 20)
        await drained(owner)
        await telling
    await until(lambda: len(told(listening)) >= 200)
    assert told(listening) == list(range(200))
    listening.disconnect()
    await listening.done()


async def test_a_standalone_stream_of_a_killed_owner_goes_on_or_is_told_to_read_again(mortal: list[Member]) -> None:
    owner, second, third = mortal
    client = await opened(owner)
    listening = await third.same(client).start("GET").started()
    await second.same(client).tool("tell", {"numbers": [1, 2]})
    await until(lambda: len(told(listening)) == 2)
    await cut_off(owner)
    await until(lambda: reattached(third))
    await second.same(client).tool("tell", {"numbers": [3, 4]})
    await until(lambda: len(told(listening)) >= 4)
    assert told(listening) == [1, 2, 3, 4]
    assert not listening.returned
    listening.disconnect()
    await listening.done()


async def test_a_standalone_stream_at_the_owner_itself_follows_a_session_that_was_taken(three: list[Member]) -> None:
    owner, second, _ = three
    client = await opened(owner)
    listening = await client.start("GET").started()
    await second.same(client).tool("tell", {"numbers": [1, 2]})
    await until(lambda: len(told(listening)) == 2)
    mine, theirs = owner.runtime.cluster, second.runtime.cluster
    assert mine is not None
    assert theirs is not None
    before = mine.ownership.me
    await theirs.membership.strike(before)
    await until(lambda: mine.ownership.me != before and mine.router.may_run())
    await second.same(client).tool("tell", {"numbers": [3, 4]})
    await until(lambda: len(told(listening)) >= 4)
    assert told(listening) == [1, 2, 3, 4]
    assert reattached(owner) >= 1
    listening.disconnect()
    await listening.done()


async def test_a_resume_in_the_middle_of_a_hand_off_has_the_stream(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("report", {"before": 5, "after": 5}, token="t")
    await call.event(5)
    async with TaskOwner() as tasks:
        draining = tasks.spawn(drained(owner))
        cluster = owner.runtime.cluster
        assert cluster is not None
        await until(lambda: cluster.ownership.handing_off(address(client)))
        call.disconnect()
        await call.done()
        resumed = third.same(client).start("GET", headers={"last-event-id": call.events[-1].id})
        await asyncio.sleep(0.2)
        owner.stage.go_on.set()
        await resumed.answered()
        await draining
    assert (progress(call), progress(resumed)) == ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert resumed.value == "reported"
