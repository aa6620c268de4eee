"""A call that may not run twice, and the path to whose owner is lost before anything of it has come: its first try is
asked for, and nothing but that. Real nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster.household import Member, household
from cluster.test_repeats import Request, begun, lose_the_path, opened, sent_again
from cluster.test_way_back import handing_off, until
from edge.server import Name, Stage
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import AcceptedElicitation
from support.patience import PATIENCE
from understudy.actors.session import ANONYMOUS
from understudy.runtime import AuditEntry, Limits, Session, SessionLimits, TenantContext
from understudy.runtime.edge.repeats import FIRST_TRY, NO_EVENT
from understudy.stores import Address

REVISIONS = pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18", "2025-03-26"])
LARGE = 3 * 2**20


def once(stage: Stage) -> MCPServer:
    """Tools that must not run twice."""
    server = MCPServer("once", log_level="CRITICAL")

    @server.tool()
    async def pay(amount: int, session: Session) -> int:
        session.state["paid"] = session.state.get("paid", 0) + amount
        await stage.hold()
        return session.state["paid"]

    @server.tool()
    async def tell(size: int, ctx: Context) -> str:
        await stage.hold()
        for number in range(3):
            await ctx.report_progress(number, message="x" * size)
        return "told"

    @server.tool()
    async def ask(ctx: Context) -> str:
        await stage.hold()
        answer = await ctx.elicit("Who are you?", Name)
        return answer.data.name if isinstance(answer, AcceptedElicitation) else answer.action

    return server


@pytest.fixture
async def house(nats_url: str) -> AsyncIterator[list[Member]]:
    async with household(nats_url, 3, server=once) as members:
        yield members


def runs(house: list[Member]) -> int:
    return sum(member.stage.runs for member in house)


@REVISIONS
@pytest.mark.parametrize("stream", [False, True], ids=["before it is a stream", "as a stream"])
async def test_a_call_that_may_not_run_twice_is_answered_by_its_owner_that_lives(
    house: list[Member], stream: bool, revision: str
) -> None:
    owner, edge, other = house
    client = owner.client()
    await client.open(revision)
    call = edge.same(client).begin_tool("pay", {"amount": 5})
    await begun(call, owner, stream=stream)
    for _ in range(2):
        await sent_again(call, edge, owner)
    owner.stage.go_on.set()
    await call.answered()
    assert call.value == 5
    assert runs(house) == 1
    assert await other.same(client).tool("pay", {"amount": 1}) == 6


@pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18"])
async def test_all_that_it_says_comes_once_however_large(house: list[Member], revision: str) -> None:
    owner, edge, _ = house
    client = owner.client()
    await client.open(revision)
    call = edge.same(client).begin_tool("tell", {"size": LARGE}, token="t")
    await begun(call, owner)
    await sent_again(call, edge, owner)
    owner.stage.go_on.set()
    await call.answered()
    steps = [m["params"]["progress"] for m in call.messages if m.get("method") == "notifications/progress"]
    assert (steps, call.value) == ([0, 1, 2], "told")


@pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18"])
async def test_its_question_reaches_the_client_and_the_answer_the_tool(house: list[Member], revision: str) -> None:
    owner, edge, other = house
    client = owner.client()
    await client.open(revision)
    call = edge.same(client).begin_tool("ask")
    await begun(call, owner)
    lose_the_path(edge, owner)
    owner.stage.go_on.set()
    question = await call.message("elicitation/create")
    await other.same(client).respond(question["id"], {"action": "accept", "content": {"name": "Ann"}})
    assert (await call.answered()).value == "Ann"
    assert runs(house) == 1


async def test_it_is_asked_for_in_the_middle_of_a_hand_off_which_waits_for_it(house: list[Member]) -> None:
    owner, edge, other = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("pay", {"amount": 5})
    await begun(call, owner, stream=False)
    async with handing_off(owner, Address("session", client.session or "")) as draining:
        await sent_again(call, edge, owner)
        owner.stage.go_on.set()
        assert (await call.answered()).value == 5
        await asyncio.wait((draining,))
    other.stage.go_on.set()
    edge.stage.go_on.set()
    assert await other.same(client).tool("pay", {"amount": 1}) == 6


async def test_one_that_waits_for_its_turn_moves_with_its_session(house: list[Member]) -> None:
    owner, edge, other = house
    edge.stage.go_on.set()
    other.stage.go_on.set()
    client = owner.client()
    await client.open("2025-06-18")
    before = client.begin_tool("pay", {"amount": 5})
    await begun(before, owner)
    call = edge.same(client).begin_tool("pay", {"amount": 1})
    await call.started()
    await sent_again(call, edge, owner)
    async with handing_off(owner, Address("session", client.session or "")) as draining:
        owner.stage.go_on.set()
        await call.answered()
        await asyncio.wait((draining,))
    assert (await before.answered()).value == 5
    assert call.value == 6
    assert runs(house) == 2, "never-run-twice"


@REVISIONS
async def test_the_outcome_of_one_that_is_over_stays_unknown(house: list[Member], revision: str) -> None:
    owner, edge, _ = house
    client = owner.client()
    await client.open(revision)
    call = edge.same(client).begin_tool("pay", {"amount": 5}, id=7)
    await begun(call, owner, stream=False)
    # It ends while its edge hears nothing.
    lose_the_path(edge, owner)
    owner.stage.go_on.set()
    await call.answered()
    assert call.reply["id"] == 7
    if "error" in call.reply:
        assert call.failure["data"] == {"outcome": "unknown"}
    assert runs(house) == 1, "never-run-twice"


async def test_of_an_owner_that_is_gone_nobody_is_asked(house: list[Member]) -> None:
    owner, edge, _ = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("pay", {"amount": 5})
    await begun(call, owner, stream=False)
    there, here = owner.runtime.cluster, edge.runtime.cluster
    assert there is not None
    assert here is not None
    forwards = edge.runtime.stats()["cluster_forwards"]
    await until(lambda: here.ownership.trusts_silence(here._clock.monotonic()))
    here.link.peer_gone(there.ownership.me)
    await call.answered()
    assert call.failure["data"] == {"outcome": "unknown"}
    assert edge.runtime.stats()["cluster_forwards"] == forwards
    owner.stage.go_on.set()


async def test_asking_for_it_costs_no_permit_and_has_no_line_in_the_audit_trail(nats_url: str) -> None:
    written: list[AuditEntry] = []
    limits = Limits(calls_in_flight=1, streams=1, per_session=SessionLimits(calls_in_flight=1, streams=1))
    async with household(nats_url, 2, server=once, limits=limits, audit=written.append) as (owner, edge):
        client = await opened(owner)
        call = edge.same(client).begin_tool("pay", {"amount": 5})
        await begun(call, owner, stream=False)
        for _ in range(2):
            await sent_again(call, edge, owner)
        owner.stage.go_on.set()
        assert (await call.answered()).value == 5
        assert await client.tool("pay", {"amount": 1}) == 6
    assert [(entry.event, entry.outcome) for entry in written if entry.tool == "pay"] == [("called", "result")] * 2
    assert {entry.event for entry in written} <= {"opened", "called", "ended"}


async def test_the_first_try_of_somebody_else_is_not_shown(house: list[Member]) -> None:
    owner, edge, _ = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("pay", {"amount": 5}, id=7)
    await begun(call, owner)
    body = client.message("tools/call", {"name": "pay", "arguments": {"amount": 5}}, id=7)
    for tenant in (TenantContext("elsewhere", "eve"), TenantContext(ANONYMOUS.tenant, "eve")):
        asking = Request(client, body, tenant, method="GET", purpose=FIRST_TRY, headers=[LAST])
        await asking.sent_again_to(owner)
        assert asking.status == 404
    assert not call.returned


@pytest.mark.parametrize("known", [True, False], ids=["here", "in an earlier version"])
@pytest.mark.parametrize("running", [True, False], ids=["while another runs", "while nothing runs"])
async def test_asking_for_a_first_try_runs_nothing_and_takes_no_stream(
    house: list[Member], known: bool, running: bool
) -> None:
    """A node of an earlier version takes a purpose that it does not know for none at all."""
    owner, *_ = house
    client = await opened(owner)
    listening = await owner.same(client).start("GET").started()
    call = client.begin_tool("pay", {"amount": 5}, id=7)
    await asyncio.wait_for(owner.stage.began.wait(), PATIENCE)
    if not running:
        owner.stage.go_on.set()
        await call.answered()
    body = client.message("tools/call", {"name": "pay", "arguments": {"amount": 6}}, id=7)
    asking = Request(client, body, method="GET", purpose=FIRST_TRY if known else "of a later release", headers=[LAST])
    await asyncio.wait_for(asking.sent_again_to(owner), PATIENCE)
    assert asking.status == 400
    assert b"no event 'first-try-0' to resume from" in asking.body
    assert owner.stage.runs == 1
    owner.stage.go_on.set()
    assert (await call.answered()).value == 5
    assert not listening.returned
    listening.disconnect()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"jsonrpc":"2.0","method":"notifications/cancelled"}'])
async def test_what_is_no_call_has_no_first_try(house: list[Member], body: bytes) -> None:
    owner, *_ = house
    client = await opened(owner)
    asking = Request(client, body, method="GET", purpose=FIRST_TRY, headers=[LAST])
    await asking.sent_again_to(owner)
    assert asking.status == 400


LAST: Any = (b"last-event-id", NO_EVENT.encode())
