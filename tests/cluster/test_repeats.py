"""A request that an edge sends again, as it may, though its first try is still in flight at the owner: real nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, cast

import pytest
from cluster.household import Member, household
from cluster.test_way_back import handing_off, until
from edge.call import HTTPCall
from edge.client import Client, put_to_sleep
from edge.server import READ_ONLY, Name, Stage
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import AcceptedElicitation
from mcp_types import ToolAnnotations
from support.patience import PATIENCE
from understudy.actors.session import ANONYMOUS
from understudy.runtime import AuditEntry, Limits, Session, SessionLimits, TenantContext
from understudy.runtime.edge import posts
from understudy.runtime.link import CallHead
from understudy.runtime.wire.inbound import Inbound
from understudy.stores import Address

IDEMPOTENT = ToolAnnotations(idempotent_hint=True)


def held(stage: Stage) -> MCPServer:
    """Tools that wait for the test, and may be repeated."""
    server = MCPServer("held", log_level="CRITICAL")

    @server.tool(annotations=READ_ONLY)
    async def look(what: str = "around") -> str:
        await stage.hold()
        return f"looked {what}"

    @server.tool(annotations=IDEMPOTENT)
    async def mark(key: str, session: Session) -> list[str]:
        session.state[key] = True
        await stage.hold()
        return sorted(session.state)

    @server.tool(annotations=READ_ONLY)
    async def who(ctx: Context) -> str:
        stage.runs += 1
        stage.began.set()
        await stage.go_on.wait()
        answer = await ctx.elicit("Who are you?", Name)
        return answer.data.name if isinstance(answer, AcceptedElicitation) else answer.action

    return server


@pytest.fixture
async def house(nats_url: str) -> AsyncIterator[list[Member]]:
    async with household(nats_url, 3, server=held) as members:
        yield members


async def opened(owner: Member) -> Client:
    client = owner.client()
    await client.open()
    return client


def lose_the_path(edge: Member, owner: Member) -> None:
    """What `edge` makes of it when NATS takes its time: the path is gone, which proves nothing of its owner yet."""
    there, here = owner.runtime.cluster, edge.runtime.cluster
    assert here is not None
    assert there is not None
    here.ownership.reconnected(here._clock.monotonic())
    here.link.peer_gone(there.ownership.me)


async def begun(call: HTTPCall, owner: Member, *, stream: bool = True) -> None:
    await asyncio.wait_for(owner.stage.began.wait(), PATIENCE)
    if stream:
        await call.started()


async def sent_again(call: HTTPCall, edge: Member, owner: Member) -> None:
    """Have `edge` lose the path to `owner`, and send `call` another time. Returns when that is read."""
    before = owner.runtime.stats()["cluster_forwards_served"]
    lose_the_path(edge, owner)
    async with asyncio.timeout(PATIENCE):
        while owner.runtime.stats()["cluster_forwards_served"] == before:
            await asyncio.sleep(0.005)
    await call.started()


@pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18"])
@pytest.mark.parametrize("stream", [False, True], ids=["before it is a stream", "as a stream"])
@pytest.mark.parametrize("tool", ["look", "mark"])
async def test_a_repeat_is_answered_by_its_first_try(
    house: list[Member], tool: str, stream: bool, revision: str
) -> None:
    owner, edge, _ = house
    client = owner.client()
    await client.open(revision)
    call = edge.same(client).begin_tool(tool, {"what" if tool == "look" else "key": "k"})
    await begun(call, owner, stream=stream)
    await sent_again(call, edge, owner)
    owner.stage.go_on.set()
    await call.answered()
    assert call.value in ("looked k", ["k"])
    assert owner.stage.runs == 1, "it need not run twice"


async def test_a_repeat_is_asked_what_its_first_try_asks(house: list[Member]) -> None:
    owner, edge, other = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("who")
    await begun(call, owner)
    lose_the_path(edge, owner)
    owner.stage.go_on.set()
    question = await call.message("elicitation/create")
    await other.same(client).respond(question["id"], {"action": "accept", "content": {"name": "Ann"}})
    await call.answered()
    assert call.value == "Ann"
    assert owner.stage.runs == 1
    assert [message.get("method") for message in call.messages].count("elicitation/create") == 1


async def test_a_path_that_is_lost_again_and_again_costs_a_repeat_nothing(house: list[Member]) -> None:
    owner, edge, _ = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("look")
    await begun(call, owner)
    for _ in range(5):
        await sent_again(call, edge, owner)
    owner.stage.go_on.set()
    await call.answered()
    assert (call.value, owner.stage.runs) == ("looked around", 1)


async def test_a_repeat_can_be_cancelled(house: list[Member]) -> None:
    owner, edge, other = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("look", id=7)
    await begun(call, owner)
    await sent_again(call, edge, owner)
    await other.same(client).notify("notifications/cancelled", {"requestId": 7})
    await call.done()
    assert owner.stage.cancelled == 1
    assert owner.stage.runs == 1


async def test_a_repeat_whose_first_try_is_over_runs(house: list[Member]) -> None:
    owner, edge, _ = house
    client = await opened(owner)
    owner.stage.go_on.set()
    assert await edge.same(client).tool("mark", {"key": "a"}, id=7) == ["a"]
    again = Request(client, client.message("tools/call", {"name": "mark", "arguments": {"key": "a"}}, id=7))
    await again.sent_again_to(owner)
    assert b'"result"' in again.body
    assert owner.stage.runs == 2


async def test_only_the_same_request_is_a_repeat(house: list[Member]) -> None:
    """The id alone is the client's to choose: what asks for something else under it is refused, repeat or not."""
    owner, edge, _ = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("look", {"what": "here"}, id=7)
    await begun(call, owner)
    other = Request(client, client.message("tools/call", {"name": "look", "arguments": {"what": "there"}}, id=7))
    await other.sent_again_to(owner)
    assert b"request id 7 is in flight already" in other.body
    owner.stage.go_on.set()
    await call.answered()
    assert call.value == "looked here"


async def test_what_a_client_sends_twice_is_no_repeat(house: list[Member]) -> None:
    owner, edge, other = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("look", id=7)
    await begun(call, owner)
    twice = await other.same(client).ask("tools/call", {"name": "look", "arguments": {}}, id=7)
    assert "in flight already" in twice.failure["message"]
    owner.stage.go_on.set()
    await call.answered()
    assert call.value == "looked around"


async def test_a_repeat_need_not_wait_for_its_first_try_to_become_a_stream(
    monkeypatch: pytest.MonkeyPatch, nats_url: str
) -> None:
    monkeypatch.setattr(posts, "DEFERRAL", 600.0)
    async with household(nats_url, 2, server=held) as (owner, edge):
        client = await opened(owner)
        call = edge.same(client).begin_tool("look")
        await begun(call, owner, stream=False)
        for _ in range(2):
            await asyncio.wait_for(sent_again(call, edge, owner), 3)
        owner.stage.go_on.set()
        await call.answered()
        assert (call.value, owner.stage.runs) == ("looked around", 1)


async def test_a_repeat_moves_with_its_session_while_its_first_try_waits_for_its_turn(house: list[Member]) -> None:
    owner, edge, third = house
    edge.stage.go_on.set()
    third.stage.go_on.set()
    client = await opened(owner)
    before = client.begin_tool("mark", {"key": "a"})
    await begun(before, owner)
    call = edge.same(client).begin_tool("mark", {"key": "b"})
    await call.started()
    await sent_again(call, edge, owner)
    async with handing_off(owner, Address("session", client.session or "")) as draining:
        owner.stage.go_on.set()
        await call.answered()
        await asyncio.wait((draining,))
    assert (await before.answered()).value == ["a"]
    assert call.value == ["a", "b"]
    assert not owner.owns(client.session)
    assert owner.stage.runs + edge.stage.runs + third.stage.runs == 2


async def test_a_repeat_that_a_resumption_has_taken_the_stream_from_ends_and_is_answered_once(
    house: list[Member],
) -> None:
    owner, edge, other = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("look")
    await begun(call, owner)
    await sent_again(call, edge, owner)
    resumed = await other.same(client).start("GET", headers={"last-event-id": (await call.event(0)).id}).started()
    await call.answered()
    owner.stage.go_on.set()
    assert (await resumed.answered()).value == "looked around"
    assert call.messages == []
    assert owner.stage.runs == 1


async def test_a_repeat_ends_with_its_session(house: list[Member]) -> None:
    owner, edge, other = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("look")
    await begun(call, owner)
    await sent_again(call, edge, owner)
    assert (await other.same(client).send("DELETE")).status == 200
    assert (await call.answered()).failure["message"] == "Request cancelled"


async def test_a_repeat_costs_no_permit_and_has_no_line_in_the_audit_trail(nats_url: str) -> None:
    written: list[AuditEntry] = []
    limits = Limits(calls_in_flight=1, streams=1, per_session=SessionLimits(calls_in_flight=1, streams=1))
    async with household(nats_url, 2, server=held, limits=limits, audit=written.append) as (owner, edge):
        client = await opened(owner)
        for number in (1, 2):
            owner.stage.began.clear()
            owner.stage.go_on.clear()
            call = edge.same(client).begin_tool("look")
            await begun(call, owner)
            for _ in range(2):
                await sent_again(call, edge, owner)
            owner.stage.go_on.set()
            await call.answered()
            assert (call.value, owner.stage.runs) == ("looked around", number)
    assert [(entry.event, entry.outcome) for entry in written if entry.tool == "look"] == [("called", "result")] * 2
    assert {entry.event for entry in written} <= {"opened", "called", "ended"}


@pytest.mark.parametrize("limits", [None, Limits(per_session=SessionLimits(calls_in_flight=1))])
async def test_a_repeat_that_comes_while_its_first_try_waits_to_be_let_in_is_answered_by_that(
    nats_url: str, limits: Limits | None
) -> None:
    async with household(nats_url, 2, server=held, limits=limits or Limits(calls_in_flight=9)) as (owner, edge):
        leg: Any = owner.runtime._node.handshake
        enter, waiting = leg._permits.enter, []

        def late(call: Any, session: Any) -> Awaitable[None]:
            gate = asyncio.Event()
            waiting.append(gate)

            async def entering() -> None:
                await gate.wait()
                entered = enter(call, session)
                if entered is not None:
                    await entered

            return entering()

        client = await opened(owner)
        leg._permits.enter = late
        call = edge.same(client).begin_tool("look")
        await until(lambda: len(waiting) == 1)
        lose_the_path(edge, owner)
        await until(lambda: len(waiting) == 2)
        waiting[0].set()
        await asyncio.wait_for(owner.stage.began.wait(), PATIENCE)
        waiting[1].set()
        await call.started()
        owner.stage.go_on.set()
        await call.answered()
        assert (call.value, owner.stage.runs) == ("looked around", 1)
        leg._permits.enter = enter
        assert await edge.same(client).tool("look") == "looked around"


@pytest.mark.parametrize("version", [2, 3])
async def test_a_repeat_says_so_in_every_version_but_the_first(nats_url: str, version: int) -> None:
    settings = {"link_versions": (version, version), "unsigned_contexts": "accept"}
    async with household(nats_url, 2, server=held, settings=lambda _: settings) as (owner, edge):
        client = await opened(owner)
        call = edge.same(client).begin_tool("look")
        await begun(call, owner)
        await sent_again(call, edge, owner)
        owner.stage.go_on.set()
        await call.answered()
        assert (call.value, owner.stage.runs) == ("looked around", 1)


async def test_a_repeat_of_somebody_else_is_told_that_there_is_no_session(house: list[Member]) -> None:
    owner, edge, _ = house
    client = await opened(owner)
    call = edge.same(client).begin_tool("look", id=7)
    await begun(call, owner)
    body = client.message("tools/call", {"name": "look", "arguments": {}}, id=7)
    foreign = Request(client, body, TenantContext("elsewhere", "eve"))
    await foreign.sent_again_to(owner)
    assert foreign.status == 404
    assert not call.returned


async def test_a_notification_that_comes_again_is_taken(house: list[Member]) -> None:
    owner, *_ = house
    client = await opened(owner)
    body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}'
    cancelled = Request(client, body)
    await cancelled.sent_again_to(owner)
    assert cancelled.status == 202


async def test_a_call_that_its_edge_has_given_up_meanwhile_is_not_served_late(house: list[Member]) -> None:
    """Its edge may have asked again, and would lose the stream to it."""
    owner, *_ = house
    client = await opened(owner)
    await put_to_sleep(owner.runtime, client.session)
    address = Address("session", client.session or "")
    cluster = owner.runtime.cluster
    assert cluster is not None
    body = client.message("tools/call", {"name": "look", "arguments": {}}, id=7)
    await cluster.router.serve(cast("Any", GivenUp(address, body)))
    assert owner.registry.live(address) is None
    assert owner.stage.runs == 0


class GivenUp:
    """A call that has come over the link, and whose caller has left."""

    over = True

    def __init__(self, address: Address, body: bytes) -> None:
        headers = [(b"mcp-session-id", address.id.encode()), (b"mcp-protocol-version", b"2025-11-25")]
        self.head = CallHead("POST", "/mcp", headers=headers, address=address)
        self._body = body

    async def receive(self) -> Any:
        return {"type": "http.request", "body": self._body}

    async def send(self, message: Any) -> None:
        raise AssertionError("nobody would get it")


class Request:
    """One that comes over the link marked as a repeat."""

    def __init__(self, client: Client, body: bytes, tenant: TenantContext = ANONYMOUS, **more: Any) -> None:
        self.status = 0
        self.body = b""
        session = (client.session or "").encode()
        lines = [
            (b"mcp-session-id", session),
            (b"mcp-protocol-version", b"2025-11-25"),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
        ]
        method = more.pop("method", "POST")
        lines += more.pop("headers", [])
        scope = {"type": "http", "method": method, "path": "/mcp", "query_string": b"", "headers": lines}
        headers, receive, send = dict(lines), self._receive, self._send
        self._inbound = Inbound(scope, headers, tenant, receive, send, body, remote=True, again=True, **more)

    async def sent_again_to(self, owner: Member) -> None:
        cluster = owner.runtime.cluster
        assert cluster is not None
        await cluster.router._served.serve_here(self._inbound)

    async def _receive(self) -> Any:
        await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
