"""A credential is judged where its request comes in, by that node's clock, and once: not again where the session is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster.household import Member, household
from edge.client import Client
from starlette.requests import Request
from understudy.runtime import TenantContext, Unauthenticated
from understudy.runtime.edge.open_streams import OpenStreams

HOUR = 3600.0


class Keys:
    """Who has which key, and until when."""

    def __init__(self) -> None:
        self.known = {"old": TenantContext("acme", "ada"), "new": TenantContext("acme", "ada")}

    def __call__(self, request: Request) -> TenantContext:
        try:
            return self.known[request.headers["authorization"]]
        except KeyError:
            raise Unauthenticated("no such key") from None


class House:
    def __init__(self, nodes: list[Member], keys: Keys, client: Client) -> None:
        self.owner, self.edge = nodes
        self.keys = keys
        self.client = client
        """At the node that does not have the session, with the key `old`."""


@pytest.fixture
async def house(nats_url: str) -> AsyncIterator[House]:
    keys = Keys()
    async with household(nats_url, 2, tenants=lambda number: keys) as nodes:
        first = nodes[0].client()
        first.headers["authorization"] = "old"
        await first.open()
        yield House(nodes, keys, nodes[1].same(first))
        nodes[0].stage.go_on.set()


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_clocks_of_edge_and_owner_may_differ(house: House, ahead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ahead`: by how much the owner's clock is ahead of that of the edge, which alone judges."""

    def edges() -> float:
        return time.time() - ahead

    monkeypatch.setattr("understudy.runtime.credentials.tenants.time", type("Clock", (), {"time": staticmethod(edges)}))
    edge: Any = house.edge.runtime.edge
    edge._open_streams = OpenStreams(house.keys, wall=edges)
    house.keys.known["old"] = TenantContext("acme", "ada", expires=edges() + 60.0)
    assert await house.client.tool("increment") == 1
    house.keys.known["old"] = TenantContext("acme", "ada", expires=edges() - 1.0)
    assert (await house.client.begin_tool("increment").answered()).status == 401
    house.keys.known["old"] = TenantContext("acme", "ada", expires=edges() + 60.0)
    assert await house.client.tool("count") == 1


async def test_what_waits_for_its_turn_when_its_key_goes_runs_and_nothing_after_it(house: House) -> None:
    held = house.client.begin_tool("hold")
    await held.until(lambda: house.owner.stage.running == 1)
    waiting = house.client.begin_tool("increment")
    cell: Any = house.owner.registry._cells
    await waiting.until(lambda: any(each.mailbox for each in cell.values()))
    del house.keys.known["old"]
    for method in ("GET", "DELETE"):
        assert (await house.client.send(method)).status == 401
    assert (await house.client.begin_tool("increment").answered()).status == 401
    house.owner.stage.go_on.set()
    assert (await held.answered()).value == 1
    assert (await waiting.answered()).value == 1
    house.client.headers["authorization"] = "new"
    assert await house.client.tool("count") == 1


async def test_a_question_is_answered_by_a_good_key_alone_and_waits_for_it(house: House) -> None:
    asking = house.client.begin_tool("ask_name")
    question = await asking.message("elicitation/create")
    answer = {"action": "accept", "content": {"name": "Ada"}}
    del house.keys.known["old"]
    assert (await house.client.respond(question["id"], answer)).status == 401
    assert not asking.complete
    house.client.headers["authorization"] = "new"
    assert (await house.client.respond(question["id"], answer)).status == 202
    assert (await asking.answered()).value == "Ada"
