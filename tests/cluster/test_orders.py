"""Operators' questions: nobody without the cluster's keys gets an answer that tells or does anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cluster.household import household
from cluster.test_strangers import KEYS, given, stranger
from understudy.actors.packing import pack, unpack
from understudy.runtime.cluster.control import ControlError, ask
from understudy.runtime.cluster.orders import FRESH, MOST_REMEMBERED, BadOrder, Orders, is_sealed
from understudy.runtime.commands.finding import Found
from understudy.runtime.commands.operator import Operator
from understudy.runtime.commands.operator_errors import OperatorError
from understudy.runtime.link import Seals
from understudy.stores.nats.settings import NatsSettings


class Wall:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def orders(wall: Wall, key: bytes = KEYS[0], node: str = "n") -> Orders:
    return Orders(Seals("shop", [key]), node, wall=wall)


def test_a_question_is_read_once_and_its_answer_by_who_asked() -> None:
    wall = Wall()
    asking, node = orders(wall), orders(wall)
    question, mark = asking.question({"op": "end", "id": "x"})
    assert is_sealed(question)
    assert b"end" not in question
    read, known = node.read(question)
    assert (read, known) == ({"op": "end", "id": "x"}, mark)
    answer = node.answer({"ok": 1}, known)
    assert asking.read_answer(answer, mark) == {"ok": 1}
    with pytest.raises(BadOrder, match="asked before"):
        node.read(question)
    with pytest.raises(BadOrder, match="not sealed by the node"):
        asking.read_answer(answer, asking.question({"op": "end"})[1])
    with pytest.raises(BadOrder, match="not sealed by the node"):
        asking.read_answer(question, mark)


@pytest.mark.parametrize("other", [{"key": b"another key than that of the shop"}, {"node": "m"}])
def test_a_question_for_another_node_or_of_another_key_is_refused(other: dict[str, Any]) -> None:
    wall = Wall()
    with pytest.raises(BadOrder, match="not sealed with a key"):
        orders(wall).read(orders(wall, **other).question({"op": "end"})[0])


@pytest.mark.parametrize("apart", [-FRESH - 1, FRESH + 1])
def test_a_question_that_was_kept_for_later_is_refused(apart: float) -> None:
    wall = Wall()
    question, _ = orders(wall).question({"op": "drain"})
    wall.now += apart
    with pytest.raises(BadOrder, match="another time"):
        orders(wall).read(question)


def test_what_is_remembered_is_bounded_and_long_enough() -> None:
    wall = Wall()
    asking, node = orders(wall), orders(wall)
    first, _ = asking.question({"op": "ping"})
    node.read(first)
    for _ in range(MOST_REMEMBERED - 1):
        node.read(asking.question({"op": "ping"})[0])
    with pytest.raises(BadOrder, match="too many"):
        node.read(asking.question({"op": "ping"})[0])
    wall.now += FRESH - 1
    with pytest.raises(BadOrder, match="asked before"):
        node.read(first)
    wall.now += FRESH + 2
    node.read(asking.question({"op": "ping"})[0])
    with pytest.raises(BadOrder, match="another time"):
        node.read(first)


@pytest.mark.parametrize("garbage", [b"", b"uo\x01", b"uo\x01" + bytes(40), b"uo\x01" + bytes(400)])
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadOrder):
        orders(Wall()).read(garbage)


async def test_a_stranger_learns_nothing_from_a_node_and_changes_nothing(nats_url: str) -> None:
    async with household(nats_url, 1, settings=given) as (node,), stranger(nats_url) as nats:
        client = node.client()
        await client.open()
        assert client.session is not None
        cluster = node.runtime.cluster
        assert cluster is not None
        other = Seals(cluster.options.name, [b"whatever a stranger thinks of ..."])
        questions = [
            {"op": op, "id": client.session} for op in ("sessions", "records", "session", "end", "drain", "keys")
        ]
        for question in questions:
            for said in (pack(question), Orders(other, node.name).question(question)[0]):
                reply = unpack((await nats.request(cluster.names.control(node.name), said, timeout=5)).data)
                assert list(reply) == ["error"]
                assert client.session not in reply["error"]
        assert cluster.stats()["cluster_orders_refused"] == 2 * len(questions)
        assert not cluster.ownership.draining
        assert await client.tool("increment") == 1
        assert (await ask(nats, cluster.names, node.name, "ping"))["incarnation"] == cluster.ownership.me
        with pytest.raises(ControlError, match="not sealed with a key"):
            await ask(nats, cluster.names, node.name, "end", seals=other, id=client.session)
        found = await ask(nats, cluster.names, node.name, "sessions", seals=cluster.seals)
        assert [row["id"] for row in found["sessions"]] == [client.session]


async def test_an_operator_needs_the_keys_that_the_cluster_was_given(nats_url: str) -> None:
    async with household(nats_url, 1, settings=given) as (node,):
        cluster = node.runtime.cluster
        assert cluster is not None
        settings = NatsSettings.from_url(nats_url)
        async with Operator.reach(Found(cluster.options.name, settings)) as without:
            with pytest.raises(OperatorError, match="--request-state-keys"):
                await without.ask(node.name, "status")
        async with Operator.reach(Found(cluster.options.name, settings, keys=tuple(KEYS))) as operator:
            assert (await operator.ask(node.name, "status"))["node"] == node.name


async def test_an_operator_finds_the_keys_that_the_cluster_keeps_in_nats(nats_url: str) -> None:
    async with household(nats_url, 1) as (node,):
        cluster = node.runtime.cluster
        assert cluster is not None
        async with Operator.reach(Found(cluster.options.name, NatsSettings.from_url(nats_url))) as operator:
            assert (await operator.ask(node.name, "status"))["node"] == node.name


async def test_who_has_the_keys_changed_can_read_that_they_are(nats_url: str) -> None:
    async with household(nats_url, 1, settings=lambda _: {"lease": 1.0}) as (node,):
        cluster = node.runtime.cluster
        assert cluster is not None
        async with Operator.reach(Found(cluster.options.name, NatsSettings.from_url(nats_url))) as operator:
            before = (await operator.ask(node.name, "keys"))["seals"]
            await operator.ask(node.name, "rotate_keys")
            while (keys := await operator.ask(node.name, "keys"))["changing"]:
                await asyncio.sleep(0.05)
            assert keys["seals"] != before
            assert keys["opens"][-1] == before


async def test_while_unsigned_contexts_are_accepted_plain_questions_are_answered(nats_url: str) -> None:
    async with household(nats_url, 1, settings=lambda _: {"unsigned_contexts": "accept"}) as (node,):
        cluster = node.runtime.cluster
        assert cluster is not None
        assert (await ask(cluster.connection, cluster.names, node.name, "status"))["node"] == node.name


async def test_an_answer_that_anybody_could_have_given_is_not_believed(nats_url: str) -> None:
    async with household(nats_url, 1, settings=given) as (node,), stranger(nats_url) as nats:
        cluster = node.runtime.cluster
        assert cluster is not None

        async def lie(message: Any) -> None:
            await message.respond(pack({"ok": {"ended": True}}))

        await nats.subscribe(cluster.names.control("ghost"), cb=lie)
        await nats.flush()
        with pytest.raises(ControlError, match="not sealed"):
            await ask(cluster.connection, cluster.names, "ghost", "end", seals=cluster.seals)
