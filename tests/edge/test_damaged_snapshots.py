"""clear-refusal: a record that cannot be read is refused by name, left as it is, and nobody else's concern."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, connected, hosting
from edge.server import make_server
from understudy.stores import Address, MemoryStore

READABLE, TOO_NEW = "stored state cannot be read", "cannot be served by this version"


async def valid_snapshot(client: Client, store: MemoryStore) -> bytes:
    await client.open()
    await client.tool("increment")
    record = await store.load(Address("session", client.session or ""))
    assert record is not None
    return record.snapshot


async def plant(store: MemoryStore, snapshot: bytes) -> str:
    """A session with this snapshot, as if a node had left it behind; its id."""
    address = Address.new("session")
    await store.create(address, tenant="anonymous", owner="before", snapshot=snapshot, ttl=3600)
    return address.id


def changed(snapshot: bytes, **fields: Any) -> bytes:
    whole = msgpack.unpackb(snapshot, timestamp=3)
    return msgpack.packb({key: value for key, value in (whole | fields).items() if value is not ...})


DAMAGES: dict[str, Any] = {
    "nothing at all": lambda snapshot: b"",
    "one byte": lambda snapshot: b"\xc1",
    "text": lambda snapshot: b"not msgpack",
    "JSON": lambda snapshot: b'{"v": 1}',
    "half of it": lambda snapshot: snapshot[: len(snapshot) // 2],
    "all but a byte": lambda snapshot: snapshot[:-1],
    "more than it": lambda snapshot: snapshot + b"\x00",
    "zeros": lambda snapshot: bytes(len(snapshot)),
    "a list": lambda snapshot: msgpack.packb([1, 2]),
    "an empty map": lambda snapshot: msgpack.packb({}),
    "no version": lambda snapshot: changed(snapshot, v=...),
    "version 0": lambda snapshot: changed(snapshot, v=0),
    "a text for the version": lambda snapshot: changed(snapshot, v="1"),
    "no state": lambda snapshot: changed(snapshot, state=...),
    "a state that is no msgpack": lambda snapshot: changed(snapshot, state=b"\xc1"),
    "a state that is no map": lambda snapshot: changed(snapshot, state=msgpack.packb([])),
    "a state that is no bytes": lambda snapshot: changed(snapshot, state=7),
    "a strange origin": lambda snapshot: changed(snapshot, origin="elsewhere"),
    "no principal": lambda snapshot: changed(snapshot, principal=None),
    "a number for a tenant": lambda snapshot: changed(snapshot, tenant=7),
    "a number for subscriptions": lambda snapshot: changed(snapshot, subscriptions=7),
    "a deep nest": lambda snapshot: b"\x91" * 100_000,
    "an array without an end": lambda snapshot: b"\xdd\xff\xff\xff\xff",
    "a map without an end": lambda snapshot: b"\xdf\xff\xff\xff\xff",
    "a text without an end": lambda snapshot: b"\xdb\xff\xff\xff\xff",
    "an extension": lambda snapshot: b"\xc7\x05\x07hello",
}


def refused(call: HTTPCall, status: int, message: str) -> None:
    assert (call.status, call.kind) == (status, "application/json"), (call.status, call.body)
    assert message in call.json["error"]["message"]
    assert call.header("mcp-session-id") is None
    if status == 503:
        assert int(call.header("retry-after") or 0) >= 1


async def refusals(client: Client, id: str) -> list[HTTPCall]:
    """What each kind of request for the session is told."""
    client.session = id
    calls: list[HTTPCall] = []
    for start in (
        lambda: client.begin("ping"),
        lambda: client.begin_tool("increment"),
        lambda: client.start(body=b'{"jsonrpc":"2.0","method":"notifications/initialized"}'),
        lambda: client.start(body=b'{"jsonrpc":"2.0","id":"1-1","result":{}}'),
        lambda: client.start("GET"),
        lambda: client.start("DELETE"),
    ):
        client.runtime._node.registry._supervision.forget(Address("session", id))
        calls.append(await start().answered())
    return calls


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_snapshot_is_refused_and_left_as_it_is(damage: Any) -> None:
    store = MemoryStore()
    async with hosting(make_server(), store=store) as client:
        snapshot = await valid_snapshot(client, store)
        healthy = client.same_session()
        planted = damage(snapshot)
        id = await plant(store, planted)
        for call in await refusals(client, id):
            refused(call, 500, READABLE)
        record = await store.load(Address("session", id))
        assert record is not None
        assert (record.snapshot, record.version) == (planted, 1)
        assert await healthy.tool("increment") == 2


async def test_a_snapshot_of_a_newer_version_waits_for_a_newer_node() -> None:
    store = MemoryStore()
    async with hosting(make_server(), store=store) as client:
        planted = changed(await valid_snapshot(client, store), v=2, something_new=[1])
        id = await plant(store, planted)
        for call in await refusals(client, id):
            refused(call, 503, TOO_NEW)
        record = await store.load(Address("session", id))
        assert record is not None
        assert (record.snapshot, record.version) == (planted, 1)


async def test_a_key_that_this_version_does_not_know_is_no_damage() -> None:
    store = MemoryStore()
    async with hosting(make_server(), store=store) as client:
        client.session = await plant(store, changed(await valid_snapshot(client, store), something_new=[1]))
        assert await client.tool("increment") == 2


async def test_a_handle_whose_snapshot_is_damaged_is_refused() -> None:
    store = MemoryStore()
    async with hosting(make_server(), store=store) as client, connected(client.runtime.app, ModernClient) as modern:
        snapshot = await valid_snapshot(client, store)
        for planted, status, message in (
            (snapshot[:-1], 500, READABLE),
            (changed(snapshot, v=2), 503, TOO_NEW),
        ):
            id = await plant(store, planted)
            for tool in ("increment", "close_session"):
                modern_call = await modern.begin_tool(tool, {"session": id}).answered()
                refused(modern_call, status, message)
                client.runtime._node.registry._supervision.forget(Address("session", id))
            record = await store.load(Address("session", id))
            assert record is not None
            assert record.snapshot == planted


async def test_a_session_that_cannot_be_read_is_not_tried_at_every_request() -> None:
    store = MemoryStore()
    async with hosting(make_server(), store=store) as client:
        await client.open()
        client.session = await plant(store, b"not msgpack")
        refused(await client.ask("ping"), 500, READABLE)
        for _ in range(20):
            refused(await client.ask("ping"), 503, "not available now")
        record = await store.load(Address("session", client.session))
        assert record is not None
        assert record.epoch <= 4, "claimed at each try"


async def test_every_truncation_is_refused() -> None:
    store = MemoryStore()
    async with hosting(make_server(), store=store) as client:
        snapshot = await valid_snapshot(client, store)
        for length in range(len(snapshot)):
            client.session = await plant(store, snapshot[:length])
            refused(await client.ask("ping"), 500, READABLE)


@pytest.mark.parametrize("seed", range(3))
async def test_flipped_bits_are_read_refused_or_foreign_and_never_harm(seed: int) -> None:
    random = Random(seed)
    store = MemoryStore()
    async with hosting(make_server(), store=store, max_sessions=50) as client:
        snapshot = await valid_snapshot(client, store)
        healthy = client.same_session()
        for number in range(300):
            flipped = bytearray(snapshot)
            for _ in range(random.choice([1, 1, 3, 20])):
                flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
            id = client.session = await plant(store, bytes(flipped))
            call = await client.ask("tools/list")
            assert call.status in (200, 404, 500, 503), call.body
            assert call.failure["message"] if call.status != 200 else call.reply
            record = await store.load(Address("session", id))
            assert record is not None
            assert record.snapshot == bytes(flipped), "reading changes nothing"
            if number % 50 == 0:
                assert (await healthy.ask("ping")).result == {}
        assert await healthy.tool("increment") == 2
