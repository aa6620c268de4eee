"""`turns="interleaved"`: calls overlap, and each merges the top-level keys that it changed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver import MCPServer
from session.stagehand import Stagehand
from session.visitor import hosted
from understudy.actors.session import StateError
from understudy.actors.session.state import merge_states, pack_state, unpack_state
from understudy.runtime import Session

LIMIT = 2**20

keys = st.sampled_from("abcde")
values = st.sampled_from([0, 1, True, 1.0, "x", [1], [True], {"k": 1}, None])
states = st.dictionaries(keys, values)


@pytest.fixture
def stagehand() -> Stagehand:
    return Stagehand()


@pytest.fixture
async def host(stagehand: Stagehand):
    async with hosted(stagehand.server(), turns="interleaved") as host:
        yield host


def packed(state: dict[str, Any]) -> bytes:
    return pack_state(state, LIMIT)


@given(now=states, before=states, after=states)
def test_a_merge_changes_the_keys_that_were_changed_and_no_others(now, before, after):
    merged = unpack_state(merge_states(packed(now), packed(before), packed(after), LIMIT))
    for key in "abcde":
        was, is_now = before.get(key, "absent"), after.get(key, "absent")
        untouched = packed({"x": was}) == packed({"x": is_now})
        expected = now.get(key, "absent") if untouched else is_now
        assert packed({"x": merged.get(key, "absent")}) == packed({"x": expected})


def test_a_merge_that_grows_too_large_is_refused():
    before, after = packed({}), packed({"a": "x" * 60})
    with pytest.raises(StateError, match="over the limit of 100"):
        merge_states(packed({"b": "y" * 60}), before, after, 100)


async def test_calls_overlap_and_their_keys_are_merged(host, stagehand, era):
    visitor = await host.visit(era)
    one = visitor.call("put", key="a", value=1, gate="a")
    other = visitor.call("put", key="b", value=2, gate="b")
    await stagehand.gate("a").entered.wait()
    await stagehand.gate("b").entered.wait()
    stagehand.gate("b").opened.set()
    await other.value()
    assert (await visitor.ask("state"))["state"] == {"b": 2}
    stagehand.gate("a").opened.set()
    await one.value()
    assert (await visitor.ask("state"))["state"] == {"a": 1, "b": 2}
    await host.sleep(visitor)
    assert (await visitor.ask("state"))["state"] == {"a": 1, "b": 2}


async def test_of_two_that_change_one_key_the_later_to_end_wins(host, stagehand, era):
    visitor = await host.visit(era)
    one = visitor.call("put", key="a", value=1, gate="a")
    other = visitor.call("put", key="a", value=2, gate="b")
    await stagehand.gate("a").entered.wait()
    await stagehand.gate("b").entered.wait()
    for gate, call in (("b", other), ("a", one)):
        stagehand.gate(gate).opened.set()
        await call.value()
    assert (await visitor.ask("state"))["state"] == {"a": 1}


async def test_a_call_that_fails_merges_nothing(host, stagehand, era):
    visitor = await host.visit(era)
    stagehand.gate("a").opened.set()
    assert "Error executing tool put" in await visitor.failure("put", key="a", value=1, gate="a", fail=True)
    assert (await visitor.ask("state"))["state"] == {}


async def test_a_call_that_is_cancelled_merges_nothing(host, stagehand, era):
    visitor = await host.visit(era)
    holding = visitor.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    await visitor.cancel(holding)
    assert (await visitor.ask("state"))["state"] == {}


async def test_a_checkpoint_merges_what_the_call_has_changed_so_far(host, stagehand, era):
    visitor = await host.visit(era)
    holding = visitor.call("hold", gate="a", save=True)
    await stagehand.gate("a").entered.wait()
    stagehand.gate("b").opened.set()
    await visitor.ask("put", key="b", value=2, gate="b")
    assert (await visitor.ask("state"))["state"] == {"count": 100, "b": 2}
    await visitor.cancel(holding)
    assert (await visitor.ask("state"))["state"] == {"count": 100, "b": 2}


async def test_a_read_only_tool_that_writes_fails_here_too(host, era):
    visitor = await host.visit(era)
    assert "tool 'scribble' changed session.state" in await visitor.failure("scribble")
    assert (await visitor.ask("state"))["state"] == {}


async def test_state_that_cannot_be_saved_fails_the_call(era):
    server = MCPServer("spoiler")

    @server.tool()
    async def spoil(session: Session) -> str:
        session.state["bad"] = {1}
        return "fine, thought the tool"

    async with hosted(server, turns="interleaved") as host:
        visitor = await host.visit(era)
        assert "session.state['bad'] is a set" in await visitor.failure("spoil")


async def test_the_call_that_wakes_the_session_holds_up_no_other(host, stagehand, era):
    visitor = await host.visit(era)
    stagehand.gate("b").opened.set()
    await visitor.ask("put", key="b", value=1, gate="b")
    await host.sleep(visitor)
    holding = visitor.call("hold", gate="a")
    await stagehand.gate("a").entered.wait()
    await visitor.ask("put", key="b", value=2, gate="b")
    stagehand.gate("a").opened.set()
    assert await holding.value() == 100
    assert (await visitor.ask("state"))["state"] == {"b": 2, "count": 100}
    assert host.registry.live(visitor.address).calls_in_flight == []


async def test_many_at_once_on_keys_of_their_own_lose_nothing(host, stagehand, era):
    visitor = await host.visit(era)
    stagehand.gate("all").opened.set()
    calls = [visitor.call("put", key=f"key {number}", value=number, gate="all") for number in range(100)]
    await asyncio.gather(*(call.value() for call in calls))
    assert (await visitor.ask("state"))["state"] == {f"key {number}": number for number in range(100)}
