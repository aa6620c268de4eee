"""The way back: a tool at one node asks, the client holds the stream at a second, and answers at a third."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from chaos.proxy import Proxy
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import Client
from edge.server import Name, Stage
from edge.test_streams import progress
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import AcceptedElicitation
from mcp_types import SamplingMessage, TextContent, ToolAnnotations
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import Session, TenantContext
from understudy.runtime.link import CallFailed
from understudy.stores import Address

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated as of 2026-07-28")


def inquirer(stage: Stage) -> MCPServer:
    """Tools that ask their client."""
    server = MCPServer("inquirer", log_level="CRITICAL")

    @server.tool()
    async def form(ctx: Context) -> str:
        answer = await ctx.elicit("Who are you?", Name)
        return answer.data.name if isinstance(answer, AcceptedElicitation) else answer.action

    @server.tool()
    async def url(ctx: Context) -> str:
        return (await ctx.elicit_url("Pay there", "https://pay.example/7", "pay-7")).action

    @server.tool()
    async def sample(ctx: Context) -> str:
        message = SamplingMessage(role="user", content=TextContent(type="text", text="Sum up"))
        result: Any = await ctx.session.create_message([message], max_tokens=10, related_request_id=ctx.request_id)
        return result.content.text

    @server.tool()
    async def roots(ctx: Context) -> str:
        return ",".join([str(root.uri) for root in (await ctx.session.list_roots()).roots])

    @server.tool()
    async def ping(ctx: Context) -> str:
        await ctx.session.send_ping()
        return "pong"

    @server.tool()
    async def interview(session: Session, ctx: Context) -> str:
        """Say what is going on, wait for the test, ask, and say more."""
        session.state["interviews"] = session.state.get("interviews", 0) + 1
        await ctx.report_progress(1)
        await ctx.info("about to ask")
        await stage.hold()
        await ctx.report_progress(2)
        answer = await ctx.elicit("Who are you?", Name)
        await ctx.info("has been told")
        await ctx.report_progress(3)
        return answer.data.name if isinstance(answer, AcceptedElicitation) else answer.action

    @server.tool()
    async def sample_with_progress(ctx: Context) -> list[float]:
        heard: list[float] = []

        async def hear(done: float, total: float | None, message: str | None) -> None:
            heard.append(done)

        channel: Any = ctx.request_context.session._request_outbound
        await channel.send_raw_request("sampling/createMessage", {"messages": []}, {"on_progress": hear})
        return heard

    @server.tool()
    async def increment(session: Session) -> int:
        session.state["count"] = session.state.get("count", 0) + 1
        return session.state["count"]

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def read_only(ctx: Context) -> str:
        answer = await ctx.elicit("Who are you?", Name)
        return answer.data.name if isinstance(answer, AcceptedElicitation) else answer.action

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def interviews(session: Session) -> int:
        return session.state.get("interviews", 0)

    return server


@pytest.fixture
async def three(nats_url: str) -> AsyncIterator[list[Member]]:
    async with household(nats_url, 3, server=inquirer) as nodes:
        yield nodes


async def opened(node: Member) -> Client:
    client = node.client()
    await client.open()
    return client


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(0.005)


def accept(name: str) -> dict[str, Any]:
    return {"action": "accept", "content": {"name": name}}


@asynccontextmanager
async def handing_off(owner: Member, address: Address) -> AsyncIterator[asyncio.Task[None]]:
    """The drain of a node that is about to hand this session off."""
    cluster = owner.runtime.cluster
    assert cluster is not None
    async with TaskOwner() as tasks:
        draining = tasks.spawn(cluster.drain())
        try:
            async with asyncio.timeout(PATIENCE):
                await until(lambda: cluster.ownership.handing_off(address))
                yield draining
        finally:
            draining.cancel()


async def resumed(node: Member, client: Client, call: HTTPCall) -> HTTPCall:
    """The stream of `call` from its last event on, at another node."""
    return await node.same(client).start("GET", headers={"last-event-id": call.events[-1].id}).started()


async def dropped(call: HTTPCall) -> None:
    call.disconnect()
    await call.done()


def in_the_log(node: Member, client: Client) -> int:
    """Events of the one call's stream that outlive its node."""
    (transcript,) = node.streams._sessions[Address("session", client.session or "")].transcripts.values()
    return transcript.done


def methods(*calls: HTTPCall) -> list[str]:
    return [message.get("method", "the answer") for call in calls for message in call.messages]


class Asks(NamedTuple):
    tool: str
    method: str
    answer: dict[str, Any]
    value: str


KINDS = [
    Asks("form", "elicitation/create", accept("Ann"), "Ann"),
    Asks("form", "elicitation/create", {"action": "decline"}, "decline"),
    Asks("url", "elicitation/create", {"action": "accept"}, "accept"),
    Asks(
        "sample",
        "sampling/createMessage",
        {"role": "assistant", "model": "none", "content": {"type": "text", "text": "short"}},
        "short",
    ),
    Asks("roots", "roots/list", {"roots": [{"uri": "file:///home"}]}, "file:///home"),
    Asks("ping", "ping", {}, "pong"),
]


@pytest.mark.parametrize("asks", KINDS, ids=[f"{kind.tool}-{kind.value[:7]}" for kind in KINDS])
async def test_question_stream_and_answer_at_three_nodes(three: list[Member], asks: Asks) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool(asks.tool)
    question = await call.message(asks.method)
    assert (await third.same(client).respond(question["id"], asks.answer)).status == 202
    assert (await call.answered()).value == asks.value
    assert methods(call) == [asks.method, "the answer"]


async def test_an_error_of_the_client_reaches_the_tool_from_any_node(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("roots")
    question = await call.message("roots/list")
    error = b'{"jsonrpc":"2.0","id":"%s","error":{"code":-32601,"message":"no roots here"}}' % question["id"].encode()
    assert (await third.same(client).send(body=error)).status == 202
    assert (await call.answered()).failure == {"code": -32601, "message": "no roots here"}


async def test_the_clients_progress_with_an_answer_reaches_who_asked(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("sample_with_progress")
    question = await call.message("sampling/createMessage")
    token = question["params"]["_meta"]["progressToken"]
    for step in (1.0, 2.0, 3.0):
        told = await third.same(client).notify("notifications/progress", {"progressToken": token, "progress": step})
        assert told.status == 202
    await third.same(client).respond(question["id"], {})
    assert (await call.answered()).value == [1.0, 2.0, 3.0]


EVERYTHING = [
    "notifications/progress",
    "notifications/message",
    "notifications/progress",
    "elicitation/create",
    "notifications/message",
    "notifications/progress",
    "the answer",
]


async def test_progress_and_log_messages_come_in_order_around_the_question(three: list[Member]) -> None:
    owner, second, third = three
    owner.stage.go_on.set()
    client = await opened(owner)
    call = second.same(client).begin_tool("interview", token="t")
    question = await call.message("elicitation/create")
    await third.same(client).respond(question["id"], accept("Ann"))
    assert (await call.answered()).value == "Ann"
    assert methods(call) == EVERYTHING
    assert progress(call) == [1, 2, 3]


async def test_the_stream_is_dropped_after_the_question_and_resumed_elsewhere(three: list[Member]) -> None:
    owner, second, third = three
    owner.stage.go_on.set()
    client = await opened(owner)
    call = second.same(client).begin_tool("interview", token="t")
    question = await call.message("elicitation/create")
    await dropped(call)
    again = await resumed(third, client, call)
    assert (await second.same(client).respond(question["id"], accept("Ann"))).status == 202
    assert (await again.answered()).value == "Ann"
    assert methods(call, again) == EVERYTHING
    assert progress(call) + progress(again) == [1, 2, 3]


async def test_an_answer_that_comes_while_nobody_is_connected_counts(three: list[Member]) -> None:
    owner, second, third = three
    owner.stage.go_on.set()
    client = await opened(owner)
    call = second.same(client).begin_tool("interview", token="t")
    question = await call.message("elicitation/create")
    await dropped(call)
    assert (await third.same(client).respond(question["id"], accept("Ann"))).status == 202
    again = await resumed(third, client, call)
    assert (await again.answered()).value == "Ann"
    assert methods(call, again) == EVERYTHING


async def test_a_question_that_was_asked_while_nobody_was_connected_is_replayed(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("interview", token="t")
    await call.message("notifications/message")
    await dropped(call)
    address = Address("session", client.session or "")
    owner.stage.go_on.set()
    await until(lambda: owner.registry.live(address)._back_channel is not None)
    again = await resumed(third, client, call)
    question = await again.message("elicitation/create")
    # And once more: it was not answered, so it is still open.
    await dropped(again)
    once_more = await owner.same(client).start("GET", headers={"last-event-id": call.events[-1].id}).started()
    assert (await once_more.message("elicitation/create"))["id"] == question["id"]
    assert (await second.same(client).respond(question["id"], accept("Ann"))).status == 202
    assert (await once_more.answered()).value == "Ann"
    assert methods(call, once_more) == EVERYTHING


async def test_a_client_that_never_comes_back_ends_the_call_clearly_and_the_session_lives_on(nats_url: str) -> None:
    async with household(nats_url, 3, server=inquirer, answer_timeout=0.2) as (owner, second, third):
        owner.stage.go_on.set()
        client = await opened(owner)
        call = second.same(client).begin_tool("interview", token="t")
        question = await call.message("elicitation/create")
        await dropped(call)
        # The next changing call has its turn when the one that waited in vain is over.
        assert await third.same(client).tool("increment") == 1
        again = await (await resumed(third, client, call)).answered()
        assert methods(again) == ["notifications/cancelled", "the answer"]
        assert again.messages[0]["params"]["requestId"] == question["id"]
        assert "no answer within 0.2 s" in again.messages[0]["params"]["reason"]
        assert "timed out" in again.failure["message"]
        for node in (owner, second, third):
            # Too late: taken, and nobody wants it any more.
            assert (await node.same(client).respond(question["id"], accept("Ann"))).status == 202
        assert await second.same(client).tool("interviews") == 0


async def test_a_connected_client_that_does_not_answer_sees_the_question_withdrawn(nats_url: str) -> None:
    async with household(nats_url, 3, server=inquirer, answer_timeout=0.2) as (owner, second, third):
        client = await opened(owner)
        call = second.same(client).begin_tool("form")
        await call.answered()
        assert methods(call) == ["elicitation/create", "notifications/cancelled", "the answer"]
        assert call.messages[1]["params"]["requestId"] == call.messages[0]["id"]
        assert await third.same(client).tool("increment") == 1


async def test_two_hundred_sessions_ask_at_once_and_are_answered_at_random_nodes(three: list[Member]) -> None:
    dice = random.Random(200)

    async def ask_and_answer(number: int) -> None:
        client = await opened(dice.choice(three))
        kind = KINDS[0] if number % 2 else KINDS[3]
        call = dice.choice(three).same(client).begin_tool(kind.tool)
        question = await call.message(kind.method)
        asked.append(number)
        await everybody.wait()
        if number % 3 == 0:
            await dropped(call)
        answer: Any = accept(f"Ann {number}")
        if kind.tool == "sample":
            answer = {**kind.answer, "content": {"type": "text", "text": f"Ann {number}"}}
        told = await dice.choice(three).same(client).respond(question["id"], answer)
        assert told.status == 202
        if number % 3 == 0:
            call = await resumed(dice.choice(three), client, call)
        assert (await call.answered()).value == f"Ann {number}"

    asked: list[int] = []
    everybody = asyncio.Event()
    async with asyncio.timeout(4 * PATIENCE), asyncio.TaskGroup() as tasks:
        for number in range(200):
            tasks.create_task(ask_and_answer(number))
        while len(asked) < 200:
            await asyncio.sleep(0.01)
        everybody.set()


# Answers that are none


async def test_of_two_answers_at_two_nodes_one_counts(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("form")
    question = await call.message("elicitation/create")
    told = await asyncio.gather(
        *(node.same(client).respond(question["id"], accept(node.name)) for node in (third, second, owner))
    )
    assert [answer.status for answer in told] == [202, 202, 202]
    assert (await call.answered()).value in {node.name for node in three}
    assert (await third.same(client).respond(question["id"], accept("late"))).status == 202
    assert await third.same(client).tool("increment") == 1


async def test_a_question_is_not_answered_in_another_session(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    stranger = await opened(second)
    call = second.same(client).begin_tool("form")
    question = await call.message("elicitation/create")
    for node in three:
        assert (await node.same(stranger).respond(question["id"], accept("Eve"))).status == 202
        assert (await node.same(client).respond(f"{question['id']}0", accept("Eve"))).status == 202
    assert owner.registry.live(Address("session", client.session or "")).questions().waiting == 1
    await third.same(client).respond(question["id"], accept("Ann"))
    assert (await call.answered()).value == "Ann"


async def test_no_wrong_tenant_answers_a_question(nats_url: str) -> None:
    def by_tenant(node: int) -> Callable[[Request], TenantContext]:
        return lambda request: TenantContext(*request.headers["authorization"].split("/"))

    async with household(nats_url, 3, server=inquirer, tenants=by_tenant) as (owner, second, third):
        client = owner.client()
        client.headers["authorization"] = "acme/ada"
        await client.open()
        call = second.same(client).begin_tool("form")
        question = await call.message("elicitation/create")
        for node in (owner, second, third):
            for stranger in ("acme/eve", "bits/ada"):
                other = node.same(client)
                other.headers["authorization"] = stranger
                assert (await other.respond(question["id"], accept("Eve"))).status == 404
                cancelled = await other.notify("notifications/cancelled", {"requestId": 1})
                assert cancelled.status == 404
        await third.same(client).respond(question["id"], accept("Ann"))
        assert (await call.answered()).value == "Ann"


async def test_a_call_that_waits_for_an_answer_is_cancelled_from_any_node(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("form", id="mine")
    question = await call.message("elicitation/create")
    told = await third.same(client).notify("notifications/cancelled", {"requestId": "mine"})
    assert told.status == 202
    assert (await call.answered()).failure["message"] == "Request cancelled"
    assert methods(call) == ["elicitation/create", "notifications/cancelled", "the answer"]
    assert call.messages[1]["params"]["requestId"] == question["id"]
    assert (await third.same(client).respond(question["id"], accept("late"))).status == 202
    assert await third.same(client).tool("increment") == 1


class BrokenOnce:
    """A link on which the first call breaks off: before it arrives, or after."""

    def __init__(self, node: Member, *, arrives: bool) -> None:
        self._link = node.runtime.cluster.router.link  # type: ignore[union-attr]
        self._arrives = arrives
        self.broken = 0
        node.runtime.cluster.router.link = self  # type: ignore[union-attr]

    async def forward(self, peer: str, head: Any, body: bytes, send: Any) -> None:
        if self.broken:
            await self._link.forward(peer, head, body, send)
            return
        self.broken += 1
        if self._arrives:

            async def lost(message: Any) -> None:
                pass

            await self._link.forward(peer, head, body, lost)
        raise CallFailed(peer, "cancelled")


@pytest.mark.parametrize("arrives", [False, True], ids=["it was lost", "its receipt was lost"])
@pytest.mark.parametrize("by", ["an answer", "a cancellation"])
async def test_what_is_told_on_a_path_that_broke_is_told_again(three: list[Member], by: str, arrives: bool) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("form", id="mine")
    question = await call.message("elicitation/create")
    link = BrokenOnce(third, arrives=arrives)
    if by == "an answer":
        assert (await third.same(client).respond(question["id"], accept("Ann"))).status == 202
        assert (await call.answered()).value == "Ann"
    else:
        told = await third.same(client).notify("notifications/cancelled", {"requestId": "mine"})
        assert told.status == 202
        assert (await call.answered()).failure["message"] == "Request cancelled"
    assert link.broken == 1
    assert await third.same(client).tool("increment") == 1


async def test_a_session_that_is_ended_while_it_asks_ends_the_call(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("form")
    question = await call.message("elicitation/create")
    assert (await third.same(client).send("DELETE")).status == 200
    assert (await call.answered()).failure["message"] == "Request cancelled"
    assert (await third.same(client).respond(question["id"], accept("late"))).status == 404


# Nodes that go


@pytest.mark.parametrize("tool", ["interview", "read_only"])
async def test_a_hand_off_waits_for_the_answer_which_finds_the_tool(three: list[Member], tool: str) -> None:
    owner, second, third = three
    owner.stage.go_on.set()
    client = await opened(owner)
    address = Address("session", client.session or "")
    call = second.same(client).begin_tool(tool, token="t")
    question = await call.message("elicitation/create")
    async with handing_off(owner, address) as draining:
        assert (await third.same(client).respond(question["id"], accept("Ann"))).status == 202
        assert (await call.answered()).value == "Ann"
        await asyncio.wait((draining,))
    assert methods(call) == (EVERYTHING if tool == "interview" else ["elicitation/create", "the answer"])
    assert not owner.owns(client.session)
    assert await third.same(client).tool("interviews") == (1 if tool == "interview" else 0)


async def test_a_stream_is_resumed_in_the_middle_of_a_hand_off_and_its_question_answered(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    address = Address("session", client.session or "")
    call = second.same(client).begin_tool("interview", token="t")
    await call.message("notifications/message")
    async with handing_off(owner, address) as draining:
        await dropped(call)
        owner.stage.go_on.set()
        await until(lambda: owner.registry.live(address)._back_channel is not None)
        again = await resumed(third, client, call)
        question = await again.message("elicitation/create")
        assert (await second.same(client).respond(question["id"], accept("Ann"))).status == 202
        assert (await again.answered()).value == "Ann"
        await asyncio.wait((draining,))
    assert methods(call, again) == EVERYTHING
    assert await third.same(client).tool("interviews") == 1


async def test_a_call_that_waits_in_a_hand_off_can_be_cancelled(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    address = Address("session", client.session or "")
    call = second.same(client).begin_tool("form", id="mine")
    question = await call.message("elicitation/create")
    async with handing_off(owner, address) as draining:
        await third.same(client).notify("notifications/cancelled", {"requestId": "mine"})
        assert (await call.answered()).failure["message"] == "Request cancelled"
        await asyncio.wait((draining,))
    assert methods(call) == ["elicitation/create", "notifications/cancelled", "the answer"]
    assert call.messages[1]["params"]["requestId"] == question["id"]
    assert await third.same(client).tool("increment") == 1


async def test_a_drain_that_waits_no_longer_withdraws_the_question_and_the_session_moves(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    call = second.same(client).begin_tool("form")
    question = await call.message("elicitation/create")
    async with asyncio.timeout(PATIENCE):
        await owner.runtime.drain(timeout=0.3)
        await call.answered()
    assert methods(call) == ["elicitation/create", "notifications/cancelled", "the answer"]
    assert call.messages[1]["params"]["requestId"] == question["id"]
    assert call.failure["message"] == "Request cancelled"
    assert (await third.same(client).respond(question["id"], accept("late"))).status == 202
    assert await third.same(client).tool("increment") == 1
    assert not owner.owns(client.session)


@pytest.fixture
async def first_can_be_cut_off(nats_url: str) -> AsyncIterator[tuple[Proxy, list[Member]]]:
    """Three nodes, of which the first has a way of its own to NATS."""
    proxy = Proxy(int(nats_url.rpartition(":")[2])).start()

    def settings(number: int) -> dict[str, Any]:
        return {"lease": 0.5, **({"nats": f"nats://127.0.0.1:{proxy.port}"} if number == 1 else {})}

    try:
        async with household(nats_url, 3, server=inquirer, settings=settings) as nodes:
            yield proxy, nodes
            await asyncio.to_thread(proxy.restore)
            await until(lambda: nodes[0].runtime.cluster.connected)  # type: ignore[union-attr]
    finally:
        proxy.stop()


async def test_a_tool_whose_node_was_cut_off_does_not_wait_for_an_answer_that_goes_elsewhere(
    first_can_be_cut_off: tuple[Proxy, list[Member]],
) -> None:
    proxy, (owner, second, third) = first_can_be_cut_off
    client = await opened(owner)
    # The client holds the stream at the owner itself, and so loses it only if the owner says so.
    call = client.begin_tool("form")
    question = await call.message("elicitation/create")
    await asyncio.to_thread(proxy.cut)
    await call.answered()
    assert methods(call) == ["elicitation/create", "notifications/cancelled", "the answer"]
    assert call.messages[1]["params"]["requestId"] == question["id"]
    assert "its node has lost the session" in call.failure["message"]
    assert call.failure["data"] == {"outcome": "unknown"}
    assert (await third.same(client).respond(question["id"], accept("late"))).status == 202
    assert await second.same(client).tool("increment") == 1


async def test_a_question_of_a_node_that_died_is_withdrawn_and_its_call_is_in_doubt(
    first_can_be_cut_off: tuple[Proxy, list[Member]],
) -> None:
    proxy, (owner, second, third) = first_can_be_cut_off
    client = await opened(owner)
    call = second.same(client).begin_tool("interview", token="t")
    owner.stage.go_on.set()
    question = await call.message("elicitation/create")
    await asyncio.to_thread(proxy.cut)
    assert (await third.same(client).respond(question["id"], accept("late"))).status == 202
    await call.answered()
    assert methods(call) == [*EVERYTHING[:4], "notifications/cancelled", "the answer"]
    assert call.messages[-2]["params"]["requestId"] == question["id"]
    assert call.failure["data"] == {"outcome": "unknown"}
    assert (await third.same(client).respond(question["id"], accept("later still"))).status == 202
    assert await second.same(client).tool("increment") == 1
    assert await third.same(client).tool("interviews") == 0


async def test_a_client_that_comes_back_after_its_node_died_finds_the_question_withdrawn(
    first_can_be_cut_off: tuple[Proxy, list[Member]],
) -> None:
    proxy, (owner, second, third) = first_can_be_cut_off
    client = await opened(owner)
    call = second.same(client).begin_tool("interview", token="t")
    await call.message("notifications/message")
    await dropped(call)
    owner.stage.go_on.set()
    address = Address("session", client.session or "")
    await until(lambda: owner.registry.live(address)._back_channel is not None)
    await until(lambda: in_the_log(owner, client) == 4)
    await asyncio.to_thread(proxy.cut)
    again = await (await resumed(third, client, call)).answered()
    assert methods(call, again) == [*EVERYTHING[:4], "notifications/cancelled", "the answer"]
    assert again.failure["data"] == {"outcome": "unknown"}
    assert await second.same(client).tool("increment") == 1
