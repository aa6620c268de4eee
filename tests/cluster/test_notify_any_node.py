"""A host program tells a client something at any node: the session may be at another, asleep, or on its way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import Client, put_to_sleep
from edge.server import make_server
from edge.test_listening import heard, listen
from mcp.shared.subscriptions import ResourceUpdated
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import (
    NoStandingStream,
    SessionNotFound,
    SessionReference,
    SessionUnavailable,
    TenantContext,
)
from understudy.runtime.edge.notices import NOTICE
from understudy.stores import Address

N = "notifications/n"


@pytest.fixture
async def three(nats_url: str) -> AsyncIterator[list[Member]]:
    async with household(nats_url, 3) as nodes:
        yield nodes


async def opened(node: Member) -> Client:
    client = node.client()
    await client.open()
    return client


def session_at(node: Member, client: Client) -> SessionReference:
    return node.runtime.session(client.session or "")


def numbers(*streams: HTTPCall) -> list[int]:
    return [message["params"]["n"] for stream in streams for message in stream.messages if message.get("method") == N]


async def outcome(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(0.005)


async def test_any_node_tells_a_client_that_listens_at_any_other(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    stream = await second.same(client).start("GET").started()
    for number, node in enumerate((third, owner, second)):
        await session_at(node, client).notify(N, {"n": number})
    await stream.until(lambda: len(numbers(stream)) == 3)
    assert numbers(stream) == [0, 1, 2]
    assert owner.owns(client.session)
    assert not third.owns(client.session)


async def test_what_one_caller_tells_arrives_in_order_however_many_nodes_it_crosses(three: list[Member]) -> None:
    owner, second, _ = three
    client = await opened(owner)
    stream = await second.same(client).start("GET").started()
    dice = random.Random(4)
    for number in range(100):
        await session_at(dice.choice(three), client).notify(N, {"n": number})
    await stream.until(lambda: len(numbers(stream)) == 100)
    assert numbers(stream) == list(range(100))


async def test_a_session_that_sleeps_is_woken_where_it_is_told(three: list[Member]) -> None:
    owner, second, _ = three
    client = await opened(owner)
    await put_to_sleep(owner.runtime, client.session)
    address = Address("session", client.session or "")
    ownership: Any = owner.runtime.cluster.ownership  # type: ignore[union-attr]
    # Written too: until then the others are sent here, where it wakes as well.
    await until(lambda: ownership.held(address) is None and address not in ownership._releasing)
    await session_at(second, client).notify(N, {"n": 1})
    assert second.owns(client.session)
    assert await owner.same(client).tool("increment") == 1


async def test_a_session_whose_node_died_is_claimed_and_told(nats_url: str) -> None:
    async with household(nats_url, 3) as (owner, second, third):
        client = await opened(owner)
        await owner.runtime.cluster.leave()  # type: ignore[union-attr]
        await session_at(second, client).notify(N, {"n": 1})
        assert second.owns(client.session) or third.owns(client.session)
        assert await third.same(client).tool("increment") == 1


async def test_a_session_that_is_handed_off_is_told_at_its_new_node(nats_url: str) -> None:
    async with household(nats_url, 3) as (owner, second, third), asyncio.timeout(PATIENCE), TaskOwner() as tasks:
        client = await opened(owner)
        stream = await third.same(client).start("GET").started()
        running = client.begin_tool("hold")
        await owner.stage.began.wait()
        cluster = owner.runtime.cluster
        assert cluster is not None
        draining = tasks.spawn(cluster.drain())
        await until(lambda: cluster.ownership.handing_off(Address("session", client.session or "")))
        telling = [tasks.spawn(outcome(session_at(node, client).notify(N, {"n": 1}))) for node in (owner, second)]
        await asyncio.sleep(0.1)
        owner.stage.go_on.set()
        await running.answered()
        await asyncio.wait((draining, *telling))
        for told in telling:
            assert told.result() is None
        assert not owner.owns(client.session)
        await stream.until(lambda: len(numbers(stream)) == 2)


async def test_who_is_between_two_connections_gets_it_at_another_node_though_the_owner_died(
    three: list[Member],
) -> None:
    owner, second, third = three
    client = await opened(owner)
    stream = await second.same(client).start("GET").started()
    await session_at(third, client).notify(N, {"n": 1})
    await stream.until(lambda: numbers(stream))
    stream.disconnect()
    await stream.done()
    await session_at(third, client).notify(N, {"n": 2})
    await owner.runtime.cluster.leave()  # type: ignore[union-attr]
    await session_at(second, client).notify(N, {"n": 3})
    last = stream.events[-1].id
    again = await third.same(client).start("GET", headers={"last-event-id": last}).started()
    await session_at(third, client).notify(N, {"n": 4})
    await again.until(lambda: 4 in numbers(again))
    assert numbers(stream, again) == [1, 2, 3, 4]


async def test_the_stream_that_is_held_while_its_owner_dies_misses_and_doubles_nothing(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    stream = await second.same(client).start("GET").started()
    for number in range(1, 21):
        await session_at(third, client).notify(N, {"n": number})
        if number == 10:
            await owner.runtime.cluster.leave()  # type: ignore[union-attr]
    await stream.until(lambda: 20 in numbers(stream))
    assert numbers(stream) == list(range(1, 21))
    assert not stream.complete


async def test_no_such_session_is_not_found_at_any_node(three: list[Member]) -> None:
    client = await opened(three[0])
    await client.send("DELETE")
    said: set[str] = set()
    for node in three:
        with pytest.raises(SessionNotFound) as error:
            await session_at(node, client).notify(N)
        said.add(str(error.value))
        with pytest.raises(SessionNotFound):
            await node.runtime.session("A" * 32).notify(N)
    assert len(said) == 1


async def test_no_wrong_tenant_is_told_at_any_node(nats_url: str) -> None:
    def by_tenant(node: int) -> Callable[[Request], TenantContext]:
        return lambda request: TenantContext(request.headers["authorization"], "ada")

    async with household(nats_url, 3, tenants=by_tenant) as nodes:
        client = nodes[0].client()
        client.headers["authorization"] = "acme"
        await client.open()
        stream = await nodes[1].same(client).start("GET").started()
        for node in nodes:
            with pytest.raises(SessionNotFound):
                await node.runtime.session(client.session or "", tenant="bits").notify(N, {"n": 0})
            await node.runtime.session(client.session or "", tenant="acme").notify(N, {"n": 1})
        await stream.until(lambda: len(numbers(stream)) == 3)
        assert numbers(stream) == [1, 1, 1]


async def test_a_session_by_handle_is_refused_alike_at_any_node(three: list[Member]) -> None:
    handle = await three[0].modern().handle()
    said: set[str] = set()
    for node in three:
        with pytest.raises(NoStandingStream) as refused:
            await node.runtime.session(handle).notify(N)
        said.add(str(refused.value))
    assert len(said) == 1


async def test_a_notice_that_broke_off_is_in_doubt_and_not_sent_again(
    three: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most once: the owner's answer is lost with the owner, after it has told the client."""
    owner, second, third = three
    client = await opened(owner)
    stream = await third.same(client).start("GET").started()
    legs = owner.runtime.edge._host_legs  # type: ignore[union-attr]
    serve = legs[NOTICE]

    async def tell_and_die(inbound: Any) -> None:
        async def lost(message: Any) -> None:
            await asyncio.get_running_loop().create_future()

        inbound.send = lost
        await serve(inbound)

    monkeypatch.setitem(legs, NOTICE, tell_and_die)
    async with TaskOwner() as tasks:
        telling = tasks.spawn(outcome(session_at(second, client).notify(N, {"n": 1})))
        await stream.until(lambda: numbers(stream))
        await owner.runtime.cluster.leave()  # type: ignore[union-attr]
        await asyncio.wait((telling,))
    error = telling.result()
    assert isinstance(error, SessionUnavailable)
    assert error.outcome_unknown
    assert "whether its client was told is not known" in str(error)
    assert numbers(stream) == [1]
    assert await second.same(client).tool("increment") == 1


async def test_an_earlier_versions_node_refuses_a_notice_clearly(three: list[Member]) -> None:
    owner, second, _ = three
    client = await opened(owner)
    # What a node does that has never heard of notices.
    del owner.runtime.edge._host_legs[NOTICE]  # type: ignore[union-attr]
    with pytest.raises(SessionUnavailable, match="Missing session ID") as error:
        await session_at(second, client).notify(N)
    assert not error.value.outcome_unknown


async def test_who_gives_up_waiting_is_told_that_it_is_in_doubt(
    three: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, second, _ = three
    client = await opened(owner)

    given_up = asyncio.Event()

    async def hang(inbound: Any) -> None:
        await given_up.wait()

    monkeypatch.setitem(owner.runtime.edge._host_legs, NOTICE, hang)  # type: ignore[union-attr]
    monkeypatch.setattr(second.runtime._node.notices, "_timeout", 0.1)
    with pytest.raises(SessionUnavailable, match=r"no answer came within 0\.1 s") as error:
        await session_at(second, client).notify(N)
    assert error.value.outcome_unknown
    # The owner would wait for its end before it goes.
    given_up.set()


async def test_no_client_can_send_a_notice(three: list[Member]) -> None:
    owner, second, third = three
    client = await opened(owner)
    stream = await second.same(client).start("GET").started()
    params = {"session": client.session, "method": N, "params": {"n": 9}, "tenant": None}
    for node in three:
        asked = await node.same(client).ask("understudy/notice", params)
        assert asked.failure["code"] == -32601
    await session_at(third, client).notify(N, {"n": 1})
    await stream.until(lambda: numbers(stream))
    assert numbers(stream) == [1]


async def test_what_is_published_at_one_node_is_heard_at_all(nats_url: str) -> None:
    def by_tenant(node: int) -> Callable[[Request], TenantContext]:
        return lambda request: TenantContext(request.headers["authorization"], "ada")

    factory = household(nats_url, 3, server=lambda stage: lambda tenant: make_server(stage), tenants=by_tenant)
    async with factory as nodes:
        streams: dict[str, list[HTTPCall]] = {"acme": [], "bits": []}
        for node in nodes:
            for tenant, theirs in streams.items():
                client = node.modern()
                client.headers["authorization"] = tenant
                theirs.append(await listen(client, "stage://a"))
        await nodes[1].runtime.publish(ResourceUpdated("stage://a"), tenant="acme")
        for stream in streams["acme"]:
            await stream.until(lambda stream=stream: heard(stream))
        await asyncio.sleep(0.05)
        assert [heard(stream) for stream in streams["acme"]] == [["stage://a"]] * 3
        assert [heard(stream) for stream in streams["bits"]] == [[]] * 3
