"""`runtime.sessions` and its hooks in a cluster: the same at every node, wherever the session is, and once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cluster.household import Member, household
from edge.client import Client, put_to_sleep
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import (
    OutcomeUnknown,
    SessionEvent,
    SessionHooks,
    SessionNotFound,
    SessionUnavailable,
    TenantContext,
)
from understudy.runtime.cluster.operations import operations
from understudy.runtime.provider.session_errands import ERRAND
from understudy.stores import Address

EVENTS = ("opened", "rehydrated", "passivated", "moved", "ended")


@pytest.fixture
async def three(nats_url: str) -> AsyncIterator[list[Member]]:
    async with household(nats_url, 3) as nodes:
        yield nodes


async def opened(node: Member) -> Client:
    client = node.client()
    await client.open()
    return client


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(0.005)


async def test_any_node_changes_and_reads_a_session_of_any_other(three: list[Member]) -> None:
    client = await opened(three[0])
    id = client.session or ""
    for number, node in enumerate(three, 1):
        assert await node.runtime.sessions.update(id, add={"count": 10}) == {"count": 10 * number}
        assert [(await other.runtime.sessions.read(id)).state["count"] for other in three] == [10 * number] * 3
        assert await node.runtime.sessions.get(id) is not None
        assert await node.runtime.sessions.size() == 1
    assert await client.tool("increment") == 31
    # It was served where it lives: nobody took it away.
    assert [node.owns(id) for node in three] == [True, False, False]


async def test_many_nodes_change_one_session_and_no_change_is_lost_or_doubled(three: list[Member]) -> None:
    client = await opened(three[0])
    id = client.session or ""

    def count(state: dict[str, Any]) -> None:
        state["count"] = state.get("count", 0) + 1

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(
            *(node.runtime.sessions.mutate(id, count) for node in three for _ in range(4)),
            *(node.runtime.sessions.update(id, add={"count": 1}) for node in three for _ in range(4)),
            *(node.same(client).tool("increment") for node in three for _ in range(4)),
        )
    assert (await three[1].runtime.sessions.read(id)).state == {"count": 36}


async def test_a_session_that_sleeps_or_whose_owner_died_is_changed_from_anywhere(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    id = client.session or ""
    await put_to_sleep(owner.runtime, id)
    assert await second.runtime.sessions.update(id, {"count": 1}) == {"count": 1}
    dying = next(node for node in three if node.owns(id))
    await dying.runtime.cluster.leave()  # type: ignore[union-attr]
    left = [node for node in (second, third, owner) if node is not dying]
    assert await left[0].runtime.sessions.update(id, add={"count": 1}, once="evt") == {"count": 2}
    assert await left[1].runtime.sessions.update(id, add={"count": 1}, once="evt") == {"count": 2}
    assert await left[1].same(client).tool("increment") == 3


async def test_an_update_with_a_name_is_made_once_though_its_owner_died_before_it_said_so(
    three: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """never-run-twice: it is asked for again at the next owner, which knows that it was made."""
    owner, second, third = three
    client = await opened(owner)
    id = client.session or ""
    legs = owner.runtime.edge._host_legs  # type: ignore[union-attr]
    serve, made = legs[ERRAND], asyncio.Event()

    async def make_it_and_fall_silent(inbound: Any) -> None:
        async def lost(message: Any) -> None:
            made.set()
            await asyncio.get_running_loop().create_future()

        inbound.send = lost
        await serve(inbound)

    monkeypatch.setitem(legs, ERRAND, make_it_and_fall_silent)
    async with TaskOwner() as tasks:
        updating = tasks.spawn(outcome(second.runtime.sessions.update(id, add={"paid": 5}, once="evt")))
        await made.wait()
        await owner.runtime.cluster.leave()  # type: ignore[union-attr]
        await asyncio.wait((updating,))
    assert updating.result() == {"paid": 5}
    assert (await third.runtime.sessions.read(id)).state == {"paid": 5}


async def test_without_a_name_the_death_of_the_owner_leaves_an_update_in_doubt(
    three: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, second, third = three
    client = await opened(owner)
    id = client.session or ""
    legs = owner.runtime.edge._host_legs  # type: ignore[union-attr]
    asked = asyncio.Event()

    async def fall_silent(inbound: Any) -> None:
        asked.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setitem(legs, ERRAND, fall_silent)
    async with TaskOwner() as tasks:
        updating = tasks.spawn(outcome(second.runtime.sessions.update(id, add={"paid": 5})))
        await asked.wait()
        await owner.runtime.cluster.leave()  # type: ignore[union-attr]
        await asyncio.wait((updating,))
    error = updating.result()
    assert isinstance(error, OutcomeUnknown)
    assert "whether it was changed is not known" in str(error)
    assert (await third.runtime.sessions.read(id)).state == {}


async def outcome(work: Any) -> Any:
    try:
        return await work
    except Exception as error:
        return error


async def test_delete_at_any_node_ends_it_at_all(three: list[Member]) -> None:
    owner, second, third = three
    for asleep in (False, True):
        client = await opened(owner)
        id = client.session or ""
        stream = await second.same(client).start("GET").started()
        if asleep:
            await put_to_sleep(owner.runtime, id)
        assert await third.runtime.sessions.delete(id)
        await stream.done()
        for node in three:
            assert not await node.runtime.sessions.delete(id)
            assert not await node.runtime.sessions.has(id)
            with pytest.raises(SessionNotFound):
                await node.runtime.sessions.update(id, {"a": 1})
            assert (await node.same(client).begin_tool("increment").answered()).status == 404


async def test_a_session_is_created_where_there_is_room_and_known_at_every_node(three: list[Member]) -> None:
    first, second, third = three
    here = await first.runtime.sessions.create(state={"count": 1})
    assert first.owns(here.id)
    assert await second.modern().tool("increment", {"session": here.id}) == 2
    # A node that is drained opens them elsewhere.
    await first.runtime.cluster.drain()  # type: ignore[union-attr]
    there = await first.runtime.sessions.create(state={"count": 5})
    assert not first.owns(there.id)
    assert await third.modern().tool("increment", {"session": there.id}) == 6


async def test_no_wrong_tenant_is_served_at_any_node(nats_url: str) -> None:
    def by_tenant(node: int) -> Callable[[Request], TenantContext]:
        return lambda request: TenantContext(request.headers["authorization"], "ada")

    async with household(nats_url, 2, tenants=by_tenant) as nodes:
        id = (await nodes[0].runtime.sessions.create(TenantContext("acme", "ada"), state={"secret": 1})).id
        for node in nodes:
            sessions = node.runtime.sessions
            for asked in (
                sessions.read(id, tenant="bits"),
                sessions.update(id, {"secret": 2}, tenant="bits"),
                sessions.mutate(id, lambda state: state.clear(), tenant="bits"),
            ):
                with pytest.raises(SessionNotFound):
                    await asked
            assert not await sessions.delete(id, tenant="bits")
            assert (await sessions.read(id, tenant="acme")).state == {"secret": 1}


async def test_an_earlier_versions_node_refuses_an_errand_clearly(three: list[Member]) -> None:
    owner, second, _ = three
    client = await opened(owner)
    del owner.runtime.edge._host_legs[ERRAND]  # type: ignore[union-attr]
    with pytest.raises(SessionUnavailable, match="Missing session ID") as error:
        await second.runtime.sessions.update(client.session or "", {"a": 1})
    assert not error.value.outcome_unknown


async def test_no_client_can_send_an_errand(three: list[Member]) -> None:
    client = await opened(three[0])
    for method in ("wake", "update", "end", "open"):
        params = {"session": client.session, "tenant": None, "timeout": 1.0}
        for node in three:
            asked = await node.same(client).ask(f"understudy/session/{method}", params)
            assert asked.failure["code"] == -32601


# Hooks


class Diary:
    """What the hooks of all nodes were told."""

    def __init__(self) -> None:
        self.told: list[SessionEvent] = []

    def hooks(self) -> SessionHooks:
        return SessionHooks(**dict.fromkeys(EVENTS, self.told.append))

    def of(self, id: str) -> list[tuple[str, str]]:
        return [(event.name, event.node) for event in self.told if event.id == id]


async def test_each_event_of_a_life_is_told_once_where_it_happens(nats_url: str) -> None:
    diary = Diary()
    async with household(nats_url, 3, hooks=diary.hooks()) as nodes:
        first, second, third = nodes
        client = await opened(first)
        id = client.session or ""
        # A call at another node is forwarded, and moves nothing.
        await second.same(client).tool("increment")
        await put_to_sleep(first.runtime, id)
        await second.same(client).tool("increment")
        owner = next(node for node in nodes if node.owns(id))
        await owner.runtime.cluster.drain()  # type: ignore[union-attr]
        await third.same(client).tool("increment")
        heir = next(node for node in nodes if node.owns(id))
        assert heir is not owner
        await next(node for node in nodes if node is not heir).runtime.sessions.delete(id)
        await until(lambda: ("ended", heir.name) in diary.of(id))
        assert diary.of(id) == [
            ("opened", first.name),
            ("passivated", first.name),
            ("rehydrated", owner.name),
            ("moved", owner.name),
            ("rehydrated", heir.name),
            ("ended", heir.name),
        ]


@pytest.mark.parametrize("asleep", [False, True])
async def test_what_an_operator_ends_is_told_once(nats_url: str, asleep: bool) -> None:
    diary = Diary()
    async with household(nats_url, 2, hooks=diary.hooks()) as nodes:
        first, second = nodes
        id = (await first.runtime.sessions.create()).id
        cluster: Any = first.runtime.cluster
        if asleep:
            await put_to_sleep(first.runtime, id)
            await cluster.router._holdings.sweep(float("inf"))
            address, ownership = Address("session", id), cluster.ownership
            await until(lambda: not ownership.holds(address) and address not in ownership._releasing)
        asked = [await operations(node.runtime.cluster)["end"]({"id": id}) for node in (second, first)]  # type: ignore[arg-type]
        assert {"ended": True} in asked
        await until(lambda: "ended" in dict(diary.of(id)))
        await asyncio.sleep(0.02)
        assert [name for name, _ in diary.of(id)].count("ended") == 1


async def test_after_the_death_of_a_node_its_sessions_are_told_of_where_they_come_back(nats_url: str) -> None:
    diary = Diary()
    async with household(nats_url, 3, hooks=diary.hooks()) as nodes:
        client = await opened(nodes[0])
        id = client.session or ""
        await until(lambda: diary.of(id))
        # As if it had been killed: its hooks are told nothing any more.
        nodes[0].runtime._node.life._note = lambda *_: None  # type: ignore[union-attr, assignment]
        await nodes[0].runtime.cluster.leave()  # type: ignore[union-attr]
        for node in nodes[1:]:
            await node.same(client).tool("increment")
        await until(lambda: len(diary.of(id)) == 2)
        assert [name for name, _ in diary.of(id)] == ["opened", "rehydrated"]


async def test_of_many_sessions_each_is_told_of_as_often_as_it_came_and_went(nats_url: str) -> None:
    diary = Diary()
    async with household(nats_url, 2, hooks=diary.hooks()) as nodes:
        ids = [(await nodes[number % 2].runtime.sessions.create()).id for number in range(40)]
        await nodes[0].runtime.cluster.drain()  # type: ignore[union-attr]
        await asyncio.gather(*(nodes[0].runtime.sessions.update(id, {"a": 1}) for id in ids))
        await asyncio.gather(*(nodes[1].runtime.sessions.delete(id) for id in ids))
        await until(lambda: sum(event.name == "ended" for event in diary.told) == len(ids))
        count = Counter((event.id, event.name) for event in diary.told)
        for number, id in enumerate(ids):
            moved = int(number % 2 == 0)
            assert [count[id, name] for name in EVENTS] == [1, moved, 0, moved, 1]


async def test_what_the_last_node_that_stops_had_falls_asleep_and_moves_nowhere(nats_url: str) -> None:
    diary = Diary()
    async with household(nats_url, 2, hooks=diary.hooks()) as (first, second):
        ids = [(await node.runtime.sessions.create()).id for node in (first, second)]
        for node in (first, second):
            await node.runtime.drain(PATIENCE)
            await node.runtime.cluster.leave()  # type: ignore[union-attr]
        await until(lambda: len(diary.told) == 4)
    assert diary.of(ids[0]) == [("opened", first.name), ("moved", first.name)]
    assert diary.of(ids[1]) == [("opened", second.name), ("passivated", second.name)]
    assert [event.reason for event in diary.told if event.id == ids[1]] == [None, "passivated"]
