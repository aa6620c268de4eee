"""A standalone stream whose session changes hands just then: nobody is left listening where nothing is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from edge.client import hosting
from edge.heirs import address_of, goes_to, heirs, sleep_of
from edge.server import Stage, make_server
from edge.test_standing_streams import LISTS, heard, leave, listen, log, rereads, words
from edge.test_streams import streaming
from mcp.server.lowlevel import Server
from support.patience import PATIENCE
from support.permits import Permits
from understudy.runtime.streams import left_streams
from understudy.runtime.streams.streams import STANDALONE
from understudy.runtime.wire.routing import Placement
from understudy.stores import MemoryStore
from understudy.stores.faulty import FaultyStore


async def test_a_client_is_not_left_at_a_node_that_the_session_leaves_while_its_log_is_read() -> None:
    store, gate = FaultyStore(MemoryStore(), seed=1), Permits()
    async with heirs(store) as nodes:
        client = await nodes.node(make_server(), placement=Placement(gate=gate))
        await client.open()
        await sleep_of(client)
        store.fail_next("events.read", "hang")
        listening = client.start("GET")
        async with asyncio.timeout(PATIENCE):
            while not store.hanging:
                await asyncio.sleep(0.001)
        gate.mine = set()
        runtime, address = client.runtime, address_of(client)
        assert runtime._node.registry is not None
        assert runtime._node.resumable.table is not None
        assert await runtime._node.registry.hand_off(address)
        runtime._node.resumable.table.move(address)
        store.release()
        await listening.answered()
        assert listening.status == 503
        assert not runtime._node.resumable.table.holds(address)


async def test_a_client_has_its_stream_though_the_session_only_leaves_memory_while_its_log_is_read() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with heirs(store) as nodes:
        client = await nodes.node(make_server())
        await client.open()
        await sleep_of(client)
        store.fail_next("events.read", "hang")
        listening = client.start("GET")
        async with asyncio.timeout(PATIENCE):
            while not store.hanging:
                await asyncio.sleep(0.001)
        await sleep_of(client)
        store.release()
        await listening.started()
        await log(client, "one")
        await heard(listening, "one")


async def test_what_two_owners_say_at_once_is_heard_whole() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        await log(client, "one")
        await heard(first, "one")
        heir = goes_to(client, await nodes.node(make_server()))
        again = await listen(heir, first.events[-1])
        await log(heir, "two")
        await heard(again, "two")
        await log(client, "of a turn that does not know yet")
        await first.done()
        async with asyncio.timeout(PATIENCE):
            while (await nodes.logged(client, STANDALONE)).last < 3:
                await asyncio.sleep(0)
        assert not client.runtime._node.resumable.table.holds(address_of(client)), (
            "it is in the log, and the session elsewhere"
        )
        await log(heir, "three")
        await again.done()
        late = await listen(heir, again.events[-1])
        await late.until(lambda: len(words(late)) == 2)
        assert set(words(late)) == {"of a turn that does not know yet", "three"}
        assert rereads(late) == set()


async def test_who_says_not_what_it_has_is_told_to_read_again_where_the_stream_was_only_woken() -> None:
    async with heirs() as nodes:
        # A low-level server: no relay tells anybody to read again.
        client = await nodes.node(Server("bare"))
        await client.open("2025-06-18")
        await leave(await listen(client))
        await log(client, "never sent")
        heir = goes_to(client, await nodes.node(Server("bare")))
        await log(heir, "next")
        again = await listen(heir)
        await heard(again, "next")
        await again.until(lambda: rereads(again) == LISTS)


async def test_a_runtime_that_has_stopped_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_streams, "GRACE", 0.05)
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await streaming(client, stage, before=2, after=0)
        stage.go_on.set()
        await call.answered()
    await asyncio.sleep(0.1)
    assert broken == []


async def test_what_comes_from_the_log_is_held_no_longer_than_it_takes_to_send_it() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        said = [f"{number} {'x' * 10_000}" for number in range(100)]
        await log(client, *said)
        await heard(first, *said)
        replays: Any = client.runtime.edge._handshake._standing_leg._replays  # type: ignore[union-attr]
        # Its memory has the newest few only.
        again = await listen(client, first.events[0])
        await heard(again, *said)
        assert replays.bytes == 0
        replays.bytes = replays._most
        refused = await client.send("GET", headers={"last-event-id": first.events[0].id})
        assert refused.status == 503
        assert refused.header("retry-after")
        replays.bytes = 0
