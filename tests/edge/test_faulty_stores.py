"""A store that fails, hangs or lies: clients are told, nothing acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, connected, hosting, initialize_params, put_to_sleep
from edge.server import Stage, make_server
from support.patience import PATIENCE
from understudy.stores import Address, Faults, FaultyStore, MemoryStore, StoreCorrupt

QUICK = 0.02
"""Seconds that a store may take to answer."""
FAULTS = ["refuse", "lose", "hang", "hang_after"]
ALWAYS = 50


def unavailable(call: HTTPCall) -> str:
    """What the client of a node without its store is told."""
    if call.kind == "application/json":
        assert call.status == 503, (call.status, call.body)
        assert int(call.header("retry-after") or 0) >= 1
    assert call.failure["code"] == -32000
    return call.failure["message"]


async def asleep(client: Client) -> None:
    await client.ask("ping")
    await put_to_sleep(client.runtime, client.session)


async def recovered(client: Client, tool: str, arguments: dict[str, Any] | None = None) -> Any:
    """What a tool returns once the session is served again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            call = await client.begin_tool(tool, arguments).answered()
            if "result" in call.reply:
                return call.value
            unavailable(call)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", FAULTS)
async def test_initialize_without_a_store_opens_nothing(fault: Any) -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store, store_timeout=QUICK) as client:
        store.fail_next("create", fault, times=ALWAYS)
        store.fail_next("load", fault, times=ALWAYS)
        call = await client.ask("initialize", initialize_params())
        unavailable(call)
        if call.kind == "application/json":
            assert call.header("mcp-session-id") is None
        store.enabled = False
        await client.open()
        assert await client.tool("increment") == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_change_that_cannot_be_saved_is_not_acknowledged(fault: Any) -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    stage = Stage()
    async with hosting(make_server(stage), store=store, store_timeout=QUICK) as client:
        await client.open()
        assert await client.tool("note", {"key": "before"}) == ["before"]
        for operation in ("save", "load"):
            store.fail_next(operation, fault, times=ALWAYS)
        call = await client.begin_tool("note", {"key": "during"}).answered()
        message = unavailable(call)
        unknown = call.failure.get("data") == {"outcome": "unknown"}
        assert unknown == (fault != "refuse")
        assert ("not known" in message) == unknown
        store.enabled = False
        notes = await recovered(client, "notes")
        assert notes in (["before"], ["before", "during"]) if unknown else notes == ["before"]
        assert await client.tool("note", {"key": "after"}) == [*notes, "after"]
        assert stage.noted == {"before": 1, "during": 1, "after": 1}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_single_fault_is_not_the_clients_concern(fault: Any) -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(stage := Stage()), store=store, store_timeout=QUICK) as client:
        await client.open()
        store.fail_next("save", fault)
        assert await client.tool("note", {"key": "a"}) == ["a"]
        assert stage.noted == {"a": 1}
        assert await client.tool("note", {"key": "b"}) == ["a", "b"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_session_that_cannot_be_woken_is_unavailable_and_not_unknown(fault: Any) -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store, store_timeout=QUICK) as client:
        await client.open()
        await client.tool("increment")
        stranger = client.twin()
        stranger.session, stranger.revision = Address.new("session").id, client.revision
        # A store that finds no record says so at once, without a moment in which to hang after it.
        for one in (client,) if fault == "hang_after" else (client, stranger):
            for way in ("request", "notification", "response", "get", "delete"):
                if (
                    one is client
                    and client.session
                    and Address("session", client.session) in client.runtime._node.registry
                ):
                    await asleep(client)
                client.runtime._node.registry._supervision.forget(Address("session", one.session or ""))
                store.fail_next("claim", fault, times=1)
                match way:
                    case "request":
                        call = await one.begin_tool("increment").answered()
                    case "notification":
                        call = await one.notify("notifications/initialized")
                    case "response":
                        call = await one.respond("1-1", {})
                    case _:
                        call = await one.send(way.upper())
                assert call.kind == "application/json"
                unavailable(call)
        store.enabled = False
        assert await recovered(client, "increment") == 2


async def test_a_session_that_cannot_be_ended_says_so_and_may_be_ended_again() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store, store_timeout=QUICK) as client:
        for fault in FAULTS:
            await client.open()
            await client.tool("increment")
            store.fail_next("delete", fault, times=ALWAYS)  # type: ignore[arg-type]
            unavailable(await client.send("DELETE"))
            store.enabled = False
            assert (await client.send("DELETE")).status in (200, 404)
            assert (await client.ask("ping")).status == 404
            store = client.runtime._node.store
            store._scripted.clear()
            store.enabled = True


async def test_a_handle_is_told_of_the_store_with_a_status() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with (
        hosting(make_server(stage := Stage()), store=store, store_timeout=QUICK) as node,
        connected(node.runtime.app, ModernClient) as client,
    ):
        store.fail_next("create", "refuse", times=ALWAYS)
        call = await client.begin_tool("open_session").answered()
        assert call.status == 503
        unavailable(call)
        store._scripted.clear()
        session = {"session": await client.handle()}
        await client.tool("note", {"key": "a", **session})
        for fault in FAULTS:
            for operation in ("save", "load"):
                store.fail_next(operation, fault, times=ALWAYS)  # type: ignore[arg-type]
            call = await client.begin_tool("note", {"key": fault, **session}).answered()
            assert (call.status, call.kind) == (503, "application/json")
            unavailable(call)
            store._scripted.clear()
            assert "a" in await recovered(client, "notes", session)
        assert set(stage.noted.values()) == {1}


async def test_a_store_that_is_corrupt_is_an_error_that_names_no_details() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store) as client:
        await client.open()
        await asleep(client)
        for send in (lambda: client.ask("ping"), lambda: client.send("GET"), lambda: client.send("DELETE")):
            client.runtime._node.registry._supervision.forget(Address("session", client.session or ""))
            store.fail_next("claim", StoreCorrupt("page 7 of /var/lib/sessions.db is damaged"))
            call = await send()
            assert call.status == 500
            assert call.failure["code"] == -32603
            assert b"sessions.db" not in call.body
        client.runtime._node.registry._supervision.forget(Address("session", client.session or ""))
        assert await client.tool("increment") == 1


SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
async def test_under_seeded_faults_nothing_acknowledged_is_lost_and_nothing_is_done_twice(seed: int) -> None:
    """Prove reply-is-durable, all-or-nothing and never-run-twice over the whole node."""
    hard = Faults(refuse=0.1, lose=0.1, hang=0.03, hang_after=0.03, delay=0.2, longest_delay=0.01)
    soft = Faults(refuse=0.02, lose=0.02, hang=0.02, hang_after=0.02)
    store = FaultyStore(
        MemoryStore(), seed=seed, faults=hard, operations={"claim": soft, "ping": Faults(), "list": Faults()}
    )
    store.enabled = False
    async with (
        hosting(make_server(stage := Stage()), store=store, store_timeout=QUICK) as node,
        connected(node.runtime.app, ModernClient) as modern,
    ):
        clients: list[tuple[Client, dict[str, Any]]] = []
        for _ in range(3):
            client = node.twin()
            client.runtime = node.runtime
            await client.open()
            clients.append((client, {}))
            clients.append((modern, {"session": await modern.handle()}))
        store.enabled = True

        async def drive(number: int, client: Client, session: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
            random = Random(f"{seed} {number}")
            acknowledged: list[str] = []
            unknown: list[str] = []
            refused: list[str] = []
            for step in range(40):
                key = f"{number}.{step}"
                call = await client.begin_tool("note", {"key": key, **session}, id=f"{number}-{step}").answered()
                if "result" in call.reply:
                    assert set(acknowledged) <= set(call.value), "what was acknowledged before is there"
                    assert call.value[-1] == key
                    acknowledged.append(key)
                else:
                    unavailable(call)
                    (unknown if call.failure.get("data") == {"outcome": "unknown"} else refused).append(key)
                    await asyncio.sleep(random.random() * 0.02)
            return acknowledged, unknown, refused

        async with asyncio.TaskGroup() as tasks:
            drives = [
                tasks.create_task(drive(number, client, session)) for number, (client, session) in enumerate(clients)
            ]
        store.enabled = False
        store.release()
        total = 0
        for (client, session), task in zip(clients, drives, strict=True):
            acknowledged, unknown, refused = task.result()
            kept = await recovered(client, "notes", session)
            assert len(kept) == len(set(kept)), "nothing is there twice"
            assert set(acknowledged) <= set(kept), "nothing that was acknowledged is lost"
            assert not set(refused) & set(kept), "what is said to have changed nothing has not"
            assert set(kept) <= set(acknowledged) | set(unknown)
            assert kept == sorted(kept, key=lambda key: int(key.partition(".")[2])), "in order"
            total += len(acknowledged)
        assert max(stage.noted.values()) == 1, "no call ran twice"
        assert total > 60, "or there were too many faults to prove anything"
