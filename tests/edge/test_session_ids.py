"""no-wrong-tenant: a session that is not yours, is over or never was, and text that is no id, answer alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, hosting, initialize_params, put_to_sleep
from edge.server import Stage, make_server
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.runtime import TenantContext, Unauthenticated
from understudy.stores import Address, MemoryStore

Ways = Callable[[Client], HTTPCall]

WAYS: dict[str, Ways] = {
    "request": lambda client: client.begin("ping", id=7),
    "call": lambda client: client.begin_tool("increment", id=7),
    "initialize": lambda client: client.begin("initialize", initialize_params(), id=7),
    "notification": lambda client: client.start(body=b'{"jsonrpc":"2.0","method":"notifications/initialized"}'),
    "cancellation": lambda client: client.start(
        body=b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
    ),
    "response": lambda client: client.start(body=b'{"jsonrpc":"2.0","id":"1-1","result":{}}'),
    "get": lambda client: client.start("GET"),
    "resume": lambda client: client.start("GET", headers={"last-event-id": "1-1"}),
    "delete": lambda client: client.start("DELETE"),
}


def by_bearer(request: Request) -> TenantContext:
    """`Bearer tenant/principal`."""
    tenant, slash, principal = request.headers.get("authorization", "").removeprefix("Bearer ").partition("/")
    if not slash:
        raise Unauthenticated
    return TenantContext(tenant, principal)


def mine(client: Client) -> Client:
    client.headers["authorization"] = "Bearer acme/ann"
    return client


async def strangers(client: Client) -> dict[str, Client]:
    """Connections whose session ids must not be told apart."""
    every: dict[str, Client] = {}
    for kind, id in {
        "never was": Address.new("session").id,
        "short": "x",
        "too long": "x" * 129,
        "far too long": "x" * 60_000,
        "empty": "",
        "with a space": "a b",
        "not ASCII": "\xe4\xff",
        "NUL": "a\x00b",
        "another kind's": "handle/abc",
    }.items():
        every[kind] = client.same_session()
        every[kind].session = id
    for kind, bearer in {"another tenant's": "Bearer evil/ann", "another user's": "Bearer acme/eve"}.items():
        await client.open()
        every[kind] = client.same_session()
        every[kind].headers["authorization"] = bearer
    await client.open()
    every["another user's, asleep"] = client.same_session()
    every["another user's, asleep"].headers["authorization"] = "Bearer acme/eve"
    assert client.session is not None
    await put_to_sleep(client.runtime, client.session)
    await client.open()
    every["deleted"] = client.same_session()
    await client.send("DELETE")
    modern = ModernClient(client._connections)
    modern.headers = dict(client.headers)
    for kind in ("a handle", "a handle, asleep"):
        every[kind] = client.same_session()
        every[kind].session = await modern.handle()
    await put_to_sleep(client.runtime, every["a handle, asleep"].session)
    return every


@pytest.mark.parametrize("way", WAYS)
async def test_all_that_is_not_the_callers_session_answers_the_same_byte_for_byte(way: str) -> None:
    now = [1_000_000.0]
    options = {"tenants": by_bearer, "store": MemoryStore(clock=lambda: now[0]), "idle_after": 300.0}
    async with hosting(make_server(), **options) as client:
        await mine(client).open()
        expired = client.same_session()
        await put_to_sleep(client.runtime, client.session)
        now[0] += 86_401
        every = await strangers(client) | {"expired": expired}

        answers: dict[tuple[int, bytes, tuple[tuple[bytes, bytes], ...]], list[str]] = {}
        for kind, stranger in every.items():
            call = await WAYS[way](stranger).answered()
            answers.setdefault((call.status, call.body, tuple(sorted(call.headers))), []).append(kind)

        ((status, body, _),) = answers
        assert status == 404
        assert b"Session not found" in body
        asked = way in ("request", "call", "initialize")
        assert (b'"id":7' if asked else b'"id":null') in body


async def test_a_stranger_changes_nothing() -> None:
    async with hosting(make_server(stage := Stage()), tenants=by_bearer) as client:
        await mine(client).open()
        running = client.begin_tool("hold", id=1)
        await stage.began.wait()
        standing = await client.start("GET").started()
        eve = client.same_session()
        eve.headers["authorization"] = "Bearer acme/eve"
        for way in WAYS.values():
            await way(eve).answered()
        assert (stage.running, stage.cancelled) == (1, 0)
        assert not standing.returned
        stage.go_on.set()
        assert (await running.answered()).value == 1
        assert await client.tool("count") == 0


async def test_a_handles_calls_are_not_cancelled_by_the_other_eras_notification() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        modern = ModernClient(client._connections)
        handle = await modern.handle()
        running = modern.begin_tool("hold", {"session": handle}, id=3)
        await stage.began.wait()
        client.session = handle
        assert (await client.notify("notifications/cancelled", {"requestId": 3})).status == 404
        stage.go_on.set()
        assert (await running.answered()).value == 1


async def test_of_two_who_end_a_session_at_once_none_is_left_without_an_answer() -> None:
    async with hosting(make_server()) as client:
        for _ in range(20):
            await client.open()
            calls = [client.start("DELETE") for _ in range(4)] + [client.start("GET"), client.begin("ping")]
            for call in calls:
                await call.answered()
                assert call.status in (200, 404)
            assert calls[0].status == 200
            assert (await client.ask("ping")).status == 404


async def test_an_id_survives_only_in_full() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        whole = client.session
        assert whole is not None
        for near in (whole[:-1], whole + "=", whole.swapcase(), whole[::-1]):
            client.session = near
            assert (await client.ask("ping")).status == 404
        client.session = whole
        assert (await client.ask("ping")).status == 200


async def test_sessions_that_wake_at_once_answer_each_to_their_own() -> None:
    async with hosting(make_server(), tenants=by_bearer) as client:
        await mine(client).open()
        eve = client.same_session()
        eve.headers["authorization"] = "Bearer acme/eve"
        await put_to_sleep(client.runtime, client.session)
        calls = [(one, one.begin_tool("increment")) for one in (eve, client, eve, client)]
        async with asyncio.timeout(PATIENCE):
            assert [(await call.answered()).status for _, call in calls] == [404, 200, 404, 200]
        assert await client.tool("count") == 2
