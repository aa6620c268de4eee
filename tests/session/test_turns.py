"""Whose turn it is: one exclusive turn at a time, and beside it all that only reads."""

from __future__ import annotations

import asyncio
import time

import pytest
from session.stagehand import Stagehand
from session.visitor import RPCError, hosted
from support.patience import PATIENCE
from understudy.runtime.demo import server as demo


@pytest.fixture
def stagehand() -> Stagehand:
    return Stagehand()


@pytest.fixture
async def host(stagehand: Stagehand):
    async with hosted(stagehand.server()) as host:
        yield host


async def test_a_thousand_increments_at_once_give_a_thousand(era):
    async with hosted(demo) as host:
        visitor = await host.visit(era)
        calls = [visitor.call("increment") for _ in range(1000)]
        async with asyncio.timeout(60):
            counts = [await call.value() for call in calls]
        assert sorted(counts) == list(range(1, 1001))
        assert await visitor.ask("count") == 1000


async def test_turns_come_in_the_order_in_which_the_calls_arrived(host, stagehand, era):
    visitor = await host.visit(era)
    holding = visitor.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    waiting = [visitor.call("increment") for _ in range(20)]
    stagehand.gate("a").opened.set()
    assert await holding.value() == 100
    assert [await call.value() for call in waiting] == list(range(101, 121))


async def test_an_exclusive_call_waits_for_the_one_that_runs(host, stagehand, era):
    visitor = await host.visit(era)
    holding = visitor.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    waiting = visitor.call("hold", gate="b")
    await visitor.tools()
    assert not stagehand.gate("b").entered.is_set()
    stagehand.gate("a").opened.set()
    await stagehand.gate("b").entered.wait()
    stagehand.gate("b").opened.set()
    assert await holding.value() == 100
    assert await waiting.value() == 200


async def test_two_sessions_do_not_wait_for_each_other(host, stagehand, era):
    one, other = await host.visit(era), await host.visit(era)
    holding = one.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    assert await other.ask("increment") == 1
    stagehand.gate("a").opened.set()
    assert await holding.value() == 100


# Beside an exclusive turn


async def test_what_only_reads_is_answered_at_once_beside_an_exclusive_turn(host, stagehand, era):
    visitor = await host.visit(era)
    await visitor.ask("increment")
    holding = visitor.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    started = time.perf_counter()
    if era == "handshake":
        assert await visitor.request("ping") == {}
        prompt = await visitor.request("prompts/get", {"name": "reading_prompt"})
        assert prompt["messages"][0]["content"]["text"] == "count is 1"
        contents = (await visitor.request("resources/read", {"uri": "stage://count"}))["contents"]
        assert contents[0]["text"] == "1"
    assert "increment" in await visitor.tools()
    assert await visitor.ask("count") == 1
    assert time.perf_counter() - started < 1
    assert not holding.ended.is_set()
    stagehand.gate("a").opened.set()
    assert await holding.value() == 101


async def test_a_reader_sees_the_state_as_last_saved(host, stagehand, era):
    visitor = await host.visit(era)
    holding = visitor.call("hold", gate="a", save=True)
    await stagehand.gate("a").entered.wait()
    assert await visitor.ask("count") == 100
    reading = visitor.call("hold_reading", gate="b")
    await stagehand.gate("b").entered.wait()
    stagehand.gate("a").opened.set()
    assert await holding.value() == 200
    stagehand.gate("b").opened.set()
    assert await reading.value() in (100, 200)
    assert await visitor.ask("count") == 200


async def test_readers_overlap_each_other(host, stagehand, era):
    visitor = await host.visit(era)
    await visitor.ask("increment")
    one, other = visitor.call("hold_reading", gate="a"), visitor.call("hold_reading", gate="b")
    await stagehand.gate("a").entered.wait()
    await stagehand.gate("b").entered.wait()
    for gate in "ab":
        stagehand.gate(gate).opened.set()
    assert await one.value() == await other.value() == 1


async def test_an_exclusive_turn_does_not_wait_for_readers(host, stagehand, era):
    visitor = await host.visit(era)
    await visitor.ask("increment")
    reading = visitor.call("hold_reading", gate="a")
    await stagehand.gate("a").entered.wait()
    assert await visitor.ask("increment") == 2
    stagehand.gate("a").opened.set()
    assert await reading.value() == 1


async def test_a_cancellation_gets_through_to_the_call_that_runs(host, stagehand, era):
    visitor = await host.visit(era)
    holding = visitor.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    await visitor.cancel(holding)
    async with asyncio.timeout(PATIENCE):
        assert await visitor.ask("increment") == 1
    if era == "handshake":
        with pytest.raises(RPCError, match="Request cancelled"):
            await holding.value()


async def test_a_cancellation_gets_through_to_a_call_that_waits(host, stagehand, era):
    visitor = await host.visit(era)
    holding = visitor.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    waiting = visitor.call("hold", gate="b")
    await visitor.tools()
    await visitor.cancel(waiting)
    await visitor.tools()
    stagehand.gate("a").opened.set()
    assert await holding.value() == 100
    assert await visitor.ask("increment") == 101
    assert not stagehand.gate("b").entered.is_set()
    if era == "handshake":
        with pytest.raises(RPCError, match="Request cancelled"):
            await waiting.value()


async def test_an_elicitation_inside_an_exclusive_turn_is_answered(host):
    visitor = await host.visit()
    call = visitor.call("ask_name")
    question = await call.message()
    assert question["method"] == "elicitation/create"
    assert await visitor.answer(question["id"], {"action": "accept", "content": {"name": "Ada"}}) == 202
    assert await call.value() == "Ada"
    assert await visitor.ask("state") == {"state": {"asked": True}}


# Who may only read


@pytest.mark.parametrize("tool", ["scribble", "scribble_deep"])
async def test_a_read_only_tool_that_writes_fails_by_name_and_changes_nothing(host, era, tool):
    visitor = await host.visit(era)
    await visitor.ask("begin_facts")
    failure = await visitor.failure(tool)
    assert f"tool '{tool}' changed session.state, but it may only read" in failure
    assert await visitor.ask("state") == {"state": {"facts": ["one", "two"]}}


async def test_a_read_only_tool_may_not_save(host, era):
    visitor = await host.visit(era)
    assert "it may only read" in await visitor.failure("scribble_and_save")


@pytest.mark.parametrize("tool", ["scribble", "scribble_deep"])
async def test_a_read_only_tool_that_wakes_the_session_may_not_write_either(host, era, tool):
    visitor = await host.visit(era)
    await visitor.ask("begin_facts")
    await host.sleep(visitor)
    assert "it may only read" in await visitor.failure(tool)
    await host.sleep(visitor)
    assert await visitor.ask("state") == {"state": {"facts": ["one", "two"]}}


@pytest.mark.parametrize("prompt", ["careless_prompt", "deeply_careless_prompt"])
async def test_a_prompt_that_writes_fails_and_changes_nothing(host, prompt):
    visitor = await host.visit()
    await visitor.ask("begin_facts")
    with pytest.raises(RPCError, match=r"prompts/get changed session\.state, but it may only read"):
        await visitor.request("prompts/get", {"name": prompt})
    assert await visitor.ask("state") == {"state": {"facts": ["one", "two"]}}


@pytest.mark.parametrize("uri", ["stage://careless", "stage://deeply-careless"])
async def test_a_resource_that_writes_fails_and_changes_nothing(host, uri):
    visitor = await host.visit()
    await visitor.ask("begin_facts")
    with pytest.raises(RPCError, match="it may only read"):
        await visitor.request("resources/read", {"uri": uri})
    assert await visitor.ask("state") == {"state": {"facts": ["one", "two"]}}


# Ids of requests


async def test_two_requests_in_flight_with_one_id_leave_neither_without_an_answer(host, stagehand):
    visitor = await host.visit()
    holding = visitor.call("hold", gate="a", id=7)
    await stagehand.gate("a").entered.wait()
    double = visitor.call("increment", id=7)
    with pytest.raises(RPCError, match="request id 7 is in flight already"):
        await double.value()
    assert double.status == 400
    stagehand.gate("a").opened.set()
    assert await holding.value() == 100
    assert await visitor.call("increment", id=7).value() == 101


async def test_in_the_modern_era_calls_of_two_clients_may_have_the_same_id(host, stagehand):
    """Each POST stands alone there: two clients that share a handle do not know of each other's ids."""
    one = await host.visit("modern")
    holding = one.call("hold", gate="a", id=7)
    await stagehand.gate("a").entered.wait()
    waiting = one.call("increment", id=7)
    reading = one.call("count", id=7)
    assert await reading.value() == 0
    stagehand.gate("a").opened.set()
    assert await holding.value() == 100
    assert await waiting.value() == 101


async def test_no_call_is_in_flight_when_all_are_answered(host, era):
    visitor = await host.visit(era)
    await visitor.ask("increment")
    await visitor.failure("scribble")
    actor = host.registry.live(visitor.address)
    assert actor.calls_in_flight == []


# A call that wakes the session, before it is known what it is


async def test_a_reader_that_wakes_the_session_holds_up_no_exclusive_turn(host, stagehand, era):
    visitor = await host.visit(era)
    await visitor.ask("increment")
    await host.sleep(visitor)
    reading = visitor.call("hold_reading", gate="a")
    await stagehand.gate("a").entered.wait()
    assert await visitor.ask("increment") == 2
    stagehand.gate("a").opened.set()
    assert await reading.value() == 1
    assert host.registry.live(visitor.address).calls_in_flight == []


async def test_a_reader_that_wakes_the_session_can_be_cancelled(host, stagehand, era):
    visitor = await host.visit(era)
    await visitor.ask("increment")
    await host.sleep(visitor)
    reading = visitor.call("hold_reading", gate="a")
    await stagehand.gate("a").entered.wait()
    await visitor.cancel(reading)
    assert await visitor.ask("increment") == 2
    assert host.registry.live(visitor.address).calls_in_flight == []


async def test_a_cancellation_that_meets_the_session_asleep_reaches_the_call_that_wakes_it(host, stagehand):
    visitor = await host.visit()
    await visitor.ask("increment")
    await host.sleep(visitor)
    holding = visitor.call("hold", gate="a")
    await visitor.cancel(holding)
    with pytest.raises(RPCError, match="Request cancelled"):
        await holding.value()
    assert await visitor.ask("count") == 1
