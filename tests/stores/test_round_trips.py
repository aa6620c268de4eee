"""What a call costs on the wire: counted between the store and its server, so that nothing is taken on trust."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from support.redis import fresh_prefix
from support.round_trips import RoundTrips
from understudy.bench.clients import HandshakeClient, PreparedCall
from understudy.bench.servers import ARGUMENTS, INCREMENT, TOOL, ten_tools
from understudy.bench.sides import understudy_app
from understudy.stores import Address, open_store

STORES = ("redis", "postgresql", "nats", "dynamodb")
TRIPS = {"claim": {"nats": 2}, "touch": {"nats": 2}}
"""Where it is more than one: NATS knows no part of a value, so what is to stay has to be read first."""


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    """Of an empty store."""
    fixture = {"redis": "redis_url", "postgresql": "postgres_url", "nats": "nats_url", "dynamodb": "dynamodb_url"}[kind]
    mine = {"redis": f"?prefix={fresh_prefix()}", "nats": f"/{fresh_prefix()}"}
    return request.getfixturevalue(fixture) + mine.get(kind, "")


@pytest.fixture
async def counted(url: str) -> AsyncIterator[tuple[str, RoundTrips]]:
    """The URL of that store behind a proxy that counts, and the proxy."""
    port = re.search(r"127\.0\.0\.1:(\d+)", url)
    assert port is not None
    async with RoundTrips(int(port[1])) as proxy:
        yield url.replace(port[0], f"127.0.0.1:{proxy.port}"), proxy


async def test_each_operation_takes_the_round_trips_that_the_guide_says(
    kind: str, counted: tuple[str, RoundTrips]
) -> None:
    url, proxy = counted
    store = await open_store(url)
    found: dict[str, set[int]] = {}
    version = 1
    for _ in range(3):
        address = Address.new("session")
        await store.create(address, tenant="acme", owner="n", snapshot=b"one", ttl=60)
        for name in ("claim", "save", "load", "touch"):
            # Twice: the first makes a statement known to the server that it has not seen before.
            for _ in range(2):
                before = proxy.count
                match name:
                    case "claim":
                        epoch = (await store.claim(address, owner="n")).epoch
                        version = 1
                    case "save":
                        version += 1
                        await store.save(address, epoch=epoch, version=version, snapshot=b"more", ttl=60)
                    case "load":
                        assert await store.load(address)
                    case _:
                        await store.touch(address, epoch=epoch, ttl=60)
                trips = proxy.count - before
            found.setdefault(name, set()).add(trips)
    await store.aclose()
    assert found == {name: {TRIPS.get(name, {}).get(kind, 1)} for name in ("claim", "save", "load", "touch")}


async def test_a_clean_turn_asks_the_store_nothing_and_a_changed_one_once(counted: tuple[str, RoundTrips]) -> None:
    url, proxy = counted
    async with understudy_app(ten_tools(sessions=True), store=url, event_log="off") as app:
        client = await HandshakeClient.open(app)
        clean, changing = PreparedCall(TOOL, ARGUMENTS), PreparedCall(INCREMENT, {})
        await client.call(changing)
        await client.call(changing)
        for call, trips in ((clean, 0), (changing, 1), (clean, 0), (changing, 1), (changing, 1)):
            before = proxy.count
            await client.call(call)
            assert proxy.count - before == trips, call.name


async def test_the_count_can_be_wrong(counted: tuple[str, RoundTrips]) -> None:
    url, proxy = counted
    store = await open_store(url)
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="n", snapshot=b"one", ttl=60)
    before = proxy.count
    for _ in range(5):
        await store.load(address)
    assert proxy.count - before >= 5
    await store.aclose()
