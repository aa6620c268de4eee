"""`Shares`: no tenant takes all places, whether calls without a session, listeners, or calls between nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from edge.client import hosting_modern
from fairness.test_fair_queues import by_name
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver import MCPServer
from support.patience import PATIENCE
from understudy.runtime import node as node_module
from understudy.runtime.fairness.shares import Full, Shares


def taken(shares: Shares, tenant: str) -> int:
    count = 0
    while shares.full(tenant) is None:
        shares.take(tenant)
        count += 1
    return count


def test_one_greedy_tenant_leaves_a_quarter_and_the_next_a_part_of_that() -> None:
    shares = Shares(1024, fair=True)
    assert taken(shares, "a") == 768
    assert shares.full("a") is Full.TENANT
    assert taken(shares, "b") == 192
    assert shares.full("c") is None


def test_whoever_takes_less_gets_what_he_asks_for() -> None:
    shares = Shares(100, fair=True)
    taken(shares, "greedy")
    for _ in range(10):
        assert shares.full("modest") is None
        shares.take("modest")


def test_without_tenants_anybody_may_take_all() -> None:
    shares = Shares(100, fair=False)
    assert taken(shares, "a") == 100
    assert shares.full("a") is Full.NODE


def test_a_single_place_can_be_had() -> None:
    assert taken(Shares(1, fair=True), "a") == 1


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=300))
def test_what_is_given_back_can_be_had_again(steps: list[tuple[str, bool]]) -> None:
    shares = Shares(20, fair=True)
    held = dict.fromkeys("abcd", 0)
    for tenant, takes in steps:
        if takes and shares.full(tenant) is None:
            shares.take(tenant)
            held[tenant] += 1
        elif held[tenant]:
            shares.give_back(tenant)
            held[tenant] -= 1
        assert shares.taken == sum(held.values()) <= 20
        assert all(count <= 15 for count in held.values())


async def test_a_tenant_whose_calls_never_end_leaves_others_room_for_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "MAX_STATELESS_CALLS", 8)
    server: MCPServer[Any] = MCPServer("waiting", version="1", log_level="CRITICAL")
    go_on = asyncio.Event()

    @server.tool()
    async def wait() -> str:
        await go_on.wait()
        return "done"

    async with hosting_modern(server, tenants=by_name) as client:
        loud, quiet = client.twin(authorization="Bearer loud"), client.twin(authorization="Bearer quiet")
        held = []
        for count in range(1, 7):
            held.append(loud.begin_tool("wait"))
            async with asyncio.timeout(PATIENCE):
                while client.runtime.stats()["stateless_calls_running"] < count:
                    await asyncio.sleep(0.001)
        refused = await loud.begin_tool("wait").answered()
        assert refused.status == 429
        assert refused.header("retry-after") == "1"
        assert (await quiet.ask("tools/list")).status == 200
        go_on.set()
        assert [(await call.answered()).value for call in held] == ["done"] * 6
        assert (await loud.begin_tool("wait").answered()).value == "done"
