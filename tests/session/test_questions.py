"""Requests from the server to its client inside a call: elicitation, sampling, roots, ping."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel
from session.visitor import Kept, RPCError, Stream, Visitor, hosted
from understudy.actors.session import SessionError
from understudy.actors.session.back_channel import MAX_PENDING, BackChannel
from understudy.actors.session.exchange import Exchange
from understudy.runtime import Session

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated as of 2026-07-28")


class Name(BaseModel):
    name: str


def inquirer() -> MCPServer:
    server = MCPServer("inquirer")

    @server.tool()
    async def ask_name(session: Session, ctx: Context) -> str:
        session.state["asked"] = session.state.get("asked", 0) + 1
        answer: Any = await ctx.elicit("Who?", Name)
        return answer.data.name if answer.action == "accept" else answer.action

    @server.tool()
    async def sample(ctx: Context) -> str:
        message = SamplingMessage(role="user", content=TextContent(type="text", text="Sum up"))
        result = await ctx.session.create_message([message], max_tokens=10, related_request_id=ctx.request_id)
        return result.content.text

    @server.tool()
    async def roots(ctx: Context) -> list[str]:
        return [str(root.uri) for root in (await ctx.session.list_roots()).roots]

    @server.tool()
    async def ping(ctx: Context) -> str:
        await ctx.session.send_ping()
        return "pong"

    @server.tool()
    async def ping_soon(ctx: Context) -> str:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ctx.session.send_ping())
        return "pong"

    @server.tool()
    async def asked(session: Session) -> int:
        return session.state.get("asked", 0)

    return server


@pytest.fixture
async def host():
    async with hosted(inquirer()) as host:
        yield host


async def question(call: Stream, method: str) -> dict[str, Any]:
    message = await call.message()
    assert message["method"] == method
    return message


async def test_a_question_goes_out_on_the_stream_of_its_call_and_the_answer_comes_back(host):
    visitor = await host.visit()
    call = visitor.call("ask_name")
    asked = await question(call, "elicitation/create")
    assert asked["params"]["message"] == "Who?"
    assert await visitor.answer(asked["id"], {"action": "accept", "content": {"name": "Ada"}}) == 202
    assert await call.value() == "Ada"


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_question_may_be_declined(host, action):
    visitor = await host.visit()
    call = visitor.call("ask_name")
    asked = await question(call, "elicitation/create")
    await visitor.answer(asked["id"], {"action": action})
    assert await call.value() == action


async def test_a_sampling_request_is_answered(host):
    visitor = await host.visit()
    call = visitor.call("sample")
    asked = await question(call, "sampling/createMessage")
    result = {"role": "assistant", "model": "none", "content": {"type": "text", "text": "short"}}
    await visitor.answer(asked["id"], result)
    assert await call.value() == "short"


@pytest.mark.parametrize("listening", [False, True], ids=["no standalone stream", "a standalone stream"])
@pytest.mark.parametrize("tool", ["roots", "ping", "ping_soon"])
async def test_what_the_sdk_asks_outside_of_any_request_goes_on_the_stream_of_the_call_that_asks(host, tool, listening):
    visitor = await host.visit()
    if listening:
        await visitor.listen()
    call = visitor.call(tool)
    asked = await question(call, "roots/list" if tool == "roots" else "ping")
    await visitor.answer(asked["id"], {"roots": [{"uri": "file:///home"}]} if tool == "roots" else {})
    assert await call.value() == (["file:///home"] if tool == "roots" else "pong")


async def test_in_the_modern_era_the_client_cannot_be_asked_so(host):
    visitor = await host.visit("modern")
    with pytest.raises(RPCError, match="back-channel"):
        await visitor.ask("roots")


async def test_an_error_of_the_client_is_the_tools(host):
    visitor = await host.visit()
    call = visitor.call("roots")
    asked = await question(call, "roots/list")
    error = {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no roots here"}}
    stream = host.begin(error, visitor.headers())
    await stream.ended.wait()
    assert stream.status == 202
    with pytest.raises(RPCError, match="-32601: no roots here"):
        await call.value()


async def test_a_question_that_is_not_answered_ends_in_one_clear_error_and_is_withdrawn():
    async with hosted(inquirer(), answer_timeout=0.05) as host:
        visitor = await host.visit()
        call = visitor.call("ask_name")
        asked = await question(call, "elicitation/create")
        withdrawn = await question(call, "notifications/cancelled")
        assert withdrawn["params"]["requestId"] == asked["id"]
        assert "no answer within 0.05 s" in withdrawn["params"]["reason"]
        with pytest.raises(RPCError, match="Request 'elicitation/create' timed out"):
            await call.value()
        # Too late: taken, and nobody wants it any more.
        assert await visitor.answer(asked["id"], {"action": "accept", "content": {"name": "Ada"}}) == 202
        assert await visitor.ask("asked") == 0


async def test_a_question_of_a_cancelled_call_is_withdrawn(host):
    visitor = await host.visit()
    call = visitor.call("ask_name")
    asked = await question(call, "elicitation/create")
    await visitor.cancel(call)
    withdrawn = await question(call, "notifications/cancelled")
    assert withdrawn["params"]["requestId"] == asked["id"]
    with pytest.raises(RPCError, match="Request cancelled"):
        await call.value()
    assert await visitor.answer(asked["id"], {"action": "decline"}) == 202
    assert await visitor.ask("asked") == 0


@pytest.mark.parametrize("answered", ["unknown", 7, "1-99", ""])
async def test_an_answer_that_nobody_waits_for_is_taken_and_ignored(host, answered):
    visitor = await host.visit()
    assert await visitor.answer(answered, {"action": "decline"}) == 202
    assert await visitor.ask("asked") == 0


async def test_a_second_answer_is_taken_and_ignored(host):
    visitor = await host.visit()
    call = visitor.call("ask_name")
    asked = await question(call, "elicitation/create")
    for name in ("Ada", "Bob"):
        assert await visitor.answer(asked["id"], {"action": "accept", "content": {"name": name}}) == 202
    assert await call.value() == "Ada"


async def test_another_session_cannot_answer(host):
    one, other = await host.visit(), await host.visit()
    call = one.call("ask_name")
    asked = await question(call, "elicitation/create")
    assert await other.answer(asked["id"], {"action": "accept", "content": {"name": "Eve"}}) == 202
    assert await one.answer(asked["id"], {"action": "accept", "content": {"name": "Ada"}}) == 202
    assert await call.value() == "Ada"


async def test_an_answer_to_a_question_of_an_earlier_life_finds_nobody(host):
    visitor = await host.visit()
    ids = []
    for name in ("Ada", "Bob"):
        call = visitor.call("ask_name")
        ids.append((await question(call, "elicitation/create"))["id"])
        if len(ids) == 2:
            assert await visitor.answer(ids[0], {"action": "accept", "content": {"name": "too late"}}) == 202
        await visitor.answer(ids[-1], {"action": "accept", "content": {"name": name}})
        assert await call.value() == name
        await host.sleep(visitor)
    assert ids[0] != ids[1]


async def test_ids_of_questions_differ_in_another_life_of_the_process():
    store = Kept()
    ids = []
    session = None
    for _ in range(3):
        async with hosted(inquirer(), store=store) as host:
            visitor = Visitor(host, session=session)
            if session is None:
                await visitor.open()
                session = visitor.session
            for _ in range(2):
                call = visitor.call("ping")
                asked = await question(call, "ping")
                ids.append(asked["id"])
                await visitor.answer(asked["id"], {})
                await call.value()
    assert len(set(ids)) == 6


async def test_the_progress_of_an_answer_reaches_who_asked():
    server = MCPServer("progress")
    heard: list[tuple[float, float | None, str | None]] = []

    @server.tool()
    async def sample(ctx: Context) -> str:
        async def progress(done: float, total: float | None, message: str | None) -> None:
            heard.append((done, total, message))

        channel = ctx.request_context.session._request_outbound
        await channel.send_raw_request("sampling/createMessage", {"messages": []}, {"on_progress": progress})
        return "done"

    async with hosted(server) as host:
        visitor = await host.visit()
        call = visitor.call("sample")
        asked = await question(call, "sampling/createMessage")
        token = asked["params"]["_meta"]["progressToken"]
        for params in (
            {"progressToken": token, "progress": 1, "total": 2, "message": "half"},
            {"progressToken": token, "progress": "much"},
            {"progressToken": token, "progress": True},
            {"progressToken": "another's", "progress": 1},
            {"progress": 1},
        ):
            assert await visitor.notify("notifications/progress", params) == 202
        await visitor.answer(asked["id"], {})
        assert await call.value() == "done"
    assert heard == [(1.0, 2.0, "half")]


# The back channel alone


async def test_there_is_a_limit_to_questions_that_wait():
    channel = BackChannel("1-", 60)
    exchange = Exchange(1, "tools/call")
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(channel.ask(exchange, "ping", None, None)) for _ in range(MAX_PENDING)]
        await asyncio.sleep(0)
        assert channel.waiting == MAX_PENDING
        with pytest.raises(SessionError, match=f"{MAX_PENDING} requests to this client wait for an answer"):
            await channel.ask(exchange, "ping", None, None)
        for number in range(MAX_PENDING):
            assert channel.answer(f"1-{number + 1}", {"number": number}, None)
    assert [task.result()["number"] for task in asking] == list(range(MAX_PENDING))
    assert channel.waiting == 0


async def test_the_asker_may_set_a_deadline_of_its_own():
    channel = BackChannel("1-", 60)
    with pytest.raises(MCPError, match="timed out"):
        await channel.ask(Exchange(1, "tools/call"), "ping", None, {"timeout": 0.01})
    assert channel.waiting == 0


async def test_outside_of_any_call_only_a_standalone_stream_can_be_asked_on():
    server = inquirer()
    contexts: list[Context] = []
    gate = asyncio.Event()
    outcomes: list[Any] = []
    async with asyncio.TaskGroup() as background:

        async def later(ctx: Context) -> None:
            await gate.wait()
            try:
                outcomes.append(await ctx.session.send_ping())
            except NoBackChannelError as error:
                outcomes.append(error)

        @server.tool()
        async def begin(ctx: Context) -> str:
            contexts.append(ctx)
            background.create_task(later(ctx))
            return "begun"

        async with hosted(server) as host:
            visitor = await host.visit()
            await visitor.ask("begin")
            gate.set()
            await asyncio.sleep(0)
            assert isinstance(outcomes[0], NoBackChannelError)

            stream = await visitor.listen()
            await visitor.ask("begin")
            asked = await question(stream, "ping")
            await visitor.answer(asked["id"], {})
    assert len(outcomes) == 2
