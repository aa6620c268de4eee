"""`NatsEventLog`: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.runtime.commands.nats_server import NatsServer
from understudy.stores import (
    Address,
    EventLogBounds,
    SessionStore,
    StoreCorrupt,
    StoreUnavailable,
    StoreVersionError,
    StreamTaken,
)
from understudy.stores.nats import NatsStore
from understudy.stores.nats.bucket import Bucket
from understudy.stores.nats.errors import NatsUnavailable, StorageFull
from understudy.stores.nats.event_records import Append, pack_append, pack_events, stream_key, unpack_append
from understudy.stores.nats.event_stream import EventStream
from understudy.stores.nats.opening import BucketOptions
from understudy.stores.nats.records import Parts
from understudy.stores.nats.settings import NatsSettings
from understudy.stores.testing import EventLogContract, ManualTime

Servers = Callable[..., NatsServer]

A = Address("session", "a")
SMALL = EventLogBounds(max_total_bytes=2**24)


class TestNatsEventLogKeepsTheContract(EventLogContract):
    lifetime = 2.0
    sweeps = False
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, nats_url: str) -> None:
        self.url = f"{nats_url}/{fresh_name()}"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await NatsStore.from_url(self.url, clock=clock, event_bounds=self.bounds)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)

    async def pass_time(self, seconds: float) -> None:
        # NATS looks for what is too old from time to time: what must be gone at once gets a little more.
        await asyncio.sleep(seconds + 0.2 if seconds > self.lifetime else seconds)


class _WithoutWaiting(TestNatsEventLogKeepsTheContract):
    """Nothing here changes what NATS does with time."""

    __test__ = False
    test_a_stream_that_is_too_old_is_gone_for_every_method = None  # type: ignore[assignment]
    test_each_append_renews_a_stream = None  # type: ignore[assignment]
    test_expire_sweeps_what_is_too_old_and_nothing_else = None  # type: ignore[assignment]


class TestNatsEventLogThatAsksTheLeaderKeepsTheContract(_WithoutWaiting):
    """As with several replicas, of which the one that answers may lag behind: here it knows nothing at all."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _no_answer_of_a_replica(self, monkeypatch: pytest.MonkeyPatch) -> None:
        open_stream = EventStream.open

        async def opened(bucket: Bucket, bounds: EventLogBounds) -> EventStream:
            return replace(await open_stream(bucket, bounds), replicas=3)

        async def nothing(self: EventStream, pattern: str) -> AsyncGenerator[object]:
            for _ in ():
                yield

        monkeypatch.setattr(EventStream, "open", opened)
        monkeypatch.setattr(EventStream, "messages", nothing)


class TestNatsEventLogWithAppendsInPartsKeepsTheContract(_WithoutWaiting):
    """As if NATS took little more than the head of a stream in one message."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _small_messages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(EventStream, "max_value", 17 * 1024)


async def test_an_append_by_the_last_writer_is_one_round_trip(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        await _append(store, 1, [b"first"])
        before = store._client.stats["out_msgs"]
        for number in range(2, 12):
            await _append(store, number, [b"more"])
        assert store._client.stats["out_msgs"] - before == 10
        before = store._client.stats["out_msgs"]
        await store.events.append(Address.new("session"), "new", 1, [b"one"], head=b"", writer="w")
        assert store._client.stats["out_msgs"] - before == 1


async def test_nothing_is_made_in_nats_before_the_log_is_used(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        assert await store._bucket.api("STREAM.INFO", {}, "looking") is not None
        assert await _stream_info(store) is None
        await _append(store, 1, [b"one"])
        info = await _stream_info(store)
        assert info is not None
        assert info["config"]["max_bytes"] == SMALL.max_total_bytes
        assert info["config"]["max_age"] == 600_000_000_000
        assert info["config"]["storage"] == "file"


async def test_the_log_takes_the_storage_of_the_bucket(nats_url: str) -> None:
    settings = NatsSettings.from_url(nats_url)
    options = BucketOptions(fresh_name(), storage="memory")
    store = await NatsStore.open(settings, options, event_bounds=SMALL)
    try:
        await _append(store, 1, [b"one"])
        info = await _stream_info(store)
        assert info is not None
        assert info["config"]["storage"] == "memory"
    finally:
        await store.aclose()


async def test_parts_of_a_writer_that_died_half_way_are_passed_over(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        await _append(store, 1, [b"one"])
        log = store.events._stream
        assert log is not None
        key = stream_key(A, "stream")
        body = pack_events([b"two", b"three"])
        await log.put(f"{key}.p.dead.0", body[:4])
        await _append(store, 2, [b"two"])
        await log.put(f"{key}.p.dead.1", body[4:])
        await _append(store, 3, [b"three"], writer="other")
        logged = await store.events.read(A, "stream")
        assert logged is not None
        assert (logged.events, logged.oldest) == ((b"one", b"two", b"three"), 1)


async def test_an_append_of_which_a_part_is_gone_is_gone_and_all_before_it(nats_url: str) -> None:
    big = os.urandom(3 * 2**20)
    async with _opened(nats_url) as store:
        await _append(store, 1, [b"one"])
        await _append(store, 2, [big])
        await _append(store, 3, [b"three"])
        log = store.events._stream
        assert log is not None
        # As by max_age or max_total_bytes: the oldest message goes first, whatever it belongs to.
        await log.purge_before(">", 3)
        logged = await store.events.read(A, "stream")
        assert logged is not None
        assert (logged.events, logged.oldest, logged.last) == ((b"three",), 3, 3)
        await log.purge_before(f"{stream_key(A, 'stream')}.>", 2**40)
        assert await store.events.read(A, "stream") is None
        await _append(store, 4, [b"four"])
        logged = await store.events.read(A, "stream")
        assert logged is not None
        assert (logged.events, logged.oldest, logged.head) == ((b"four",), 4, b"head")


async def test_what_nats_holds_of_a_stream_stays_near_its_bounds(nats_url: str) -> None:
    bounds = replace(SMALL, max_events=100, max_bytes=50_000)
    async with _opened(nats_url, bounds) as first, _opened(nats_url, bounds, first) as second:
        number, most = 1, 0
        for step in range(600):
            # The writers change all the time, so that none of them has written more than a part of it.
            store = (first, second)[step // 17 % 2]
            await _append(store, number, [b"x" * 300, b"y" * 300], writer=f"node-{step // 17}")
            number += 2
            info = await _stream_info(store)
            assert info is not None
            most = max(most, info["state"]["messages"])
        logged = await first.events.read(A, "stream")
        assert logged is not None
        assert (logged.last, len(logged.events)) == (1200, 100)
        assert most < 3 * 50, "messages of two events"


async def test_two_nodes_with_other_bounds_agree_on_those_of_the_one_that_came_last(nats_url: str) -> None:
    async with _opened(nats_url) as first, _opened(nats_url, replace(SMALL, max_age=60.0), first) as second:
        await _append(first, 1, [b"one"])
        await _append(second, 2, [b"two"])
        info = await _stream_info(first)
        assert info is not None
        assert info["config"]["max_age"] == 60_000_000_000
        assert second.events.bounds.max_age == 60.0


async def test_where_nats_has_no_room_for_all_a_smaller_log_is_made_and_says_so(
    nats_servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_servers(max_file_store=2**26) as server:
        store = await NatsStore.from_url(f"{server.url}/b", event_bounds=EventLogBounds())
        try:
            with caplog.at_level(logging.WARNING):
                await _append(store, 1, [b"one"])
            assert 2**24 <= store.events.bounds.max_total_bytes <= 2**26
            assert "keeps" in caplog.text
        finally:
            await store.aclose()


async def test_where_nats_has_no_room_at_all_an_append_says_so_and_records_go_on(nats_servers: Servers) -> None:
    async with nats_servers(max_file_store=2**20) as server:
        store = await NatsStore.from_url(f"{server.url}/b")
        try:
            with pytest.raises(StorageFull) as caught:
                await _append(store, 1, [b"one"])
            assert caught.value.outcome_unknown is False
            with pytest.raises(StoreUnavailable):
                await store.events.read(A, "stream")
            await store.create(A, tenant="", owner="n", snapshot=b"x", ttl=60.0)
        finally:
            await store.aclose()


async def test_while_nats_is_away_every_call_says_so_and_then_what_was_acknowledged_is_there(
    nats_servers: Servers,
) -> None:
    async with nats_servers() as server, _opened(server.url) as store:
        log = store.events
        addresses = [Address.new("session") for _ in range(20)]
        acknowledged = dict.fromkeys(addresses, 0)

        async def keep_appending(address: Address) -> None:
            for number in range(1, 10_000):
                try:
                    await log.append(address, "stream", number, [b"%d" % number], head=b"", writer="w")
                except StoreUnavailable:
                    return
                acknowledged[address] = number

        async with asyncio.TaskGroup() as tasks:
            for address in addresses:
                tasks.create_task(keep_appending(address))
            while min(acknowledged.values()) < 5:
                await asyncio.sleep(0.001)
            server.kill()
        while store.stats()["connected"]:
            await asyncio.sleep(0.001)
        for call in (
            log.append(A, "s", 1, [], head=b"", writer="w"),
            log.read(A, "s"),
            log.drop([(A, "s")]),
            log.drop_all(A),
        ):
            with pytest.raises(NatsUnavailable) as caught:
                await call
            assert caught.value.outcome_unknown is False
        await server.start()
        async with asyncio.timeout(PATIENCE):
            while not store.stats()["connected"]:
                await asyncio.sleep(0.01)
        for address, number in acknowledged.items():
            # The one in flight may have arrived without an answer: repeating it settles that.
            await log.append(address, "stream", number + 1, [b"%d" % (number + 1)], head=b"", writer="w")
            logged = await log.read(address, "stream")
            assert logged is not None
            assert logged.events == tuple(b"%d" % n for n in range(1, number + 2))


async def test_a_log_that_was_removed_is_made_again(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        await _append(store, 1, [b"one"])
        log = store.events._stream
        assert log is not None
        await log.api("STREAM.DELETE", {}, "removing", writing=True)
        with pytest.raises(StoreUnavailable):
            await _append(store, 2, [b"two"])
        await _append(store, 2, [b"two"])
        logged = await store.events.read(A, "stream")
        assert logged is not None
        assert (logged.oldest, logged.events) == (2, (b"two",))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"metadata": {}}, StoreCorrupt),
        ({"metadata": {"understudy.events": "2"}}, StoreVersionError),
        ({"discard": "new"}, StoreCorrupt),
    ],
)
async def test_a_stream_that_is_not_fit_is_refused_and_left_alone(
    nats_url: str, change: dict[str, object], error: type[Exception]
) -> None:
    async with _opened(nats_url) as store:
        await _append(store, 1, [b"one"])
        log = store.events._stream
        info = await _stream_info(store)
        assert log is not None
        assert info is not None
        await log.api("STREAM.UPDATE", info["config"] | change, "changing", writing=True)
        async with _opened(nats_url, SMALL, store) as other:
            with pytest.raises(error):
                await _append(other, 2, [b"two"])
            await other.ping()
        after = await _stream_info(store)
        assert after is not None
        assert after["state"]["messages"] == 1


@pytest.mark.parametrize("data", [b"", b"\xc1", b"x", b"\x93\x01\x02\x03", b"\x80", b"hello"])
async def test_a_damaged_append_is_corrupt_and_a_newer_one_of_another_version(nats_url: str, data: bytes) -> None:
    async with _opened(nats_url) as store:
        await _append(store, 1, [b"one"])
        log = store.events._stream
        assert log is not None
        await log.put(f"{stream_key(A, 'stream')}.e", data)
        with pytest.raises(StoreCorrupt):
            await store.events.read(A, "stream")
        await log.put(f"{stream_key(A, 'stream')}.e", b"\x91\x02")
        with pytest.raises((StoreCorrupt, StoreVersionError)):
            await _append(store, 2, [b"two"])
        await store.events.drop([(A, "stream")])
        await _append(store, 1, [b"one"])


GOLDEN = {
    "9901c4046865616401 02 a16e c3 05 cd012c 92c4036f6e65c40374776f": Append(
        b"head", 1, 2, "n", True, 5, 300, (b"one", b"two")
    ),
    "9901c400 39 01 a16e c2 01 03 83 a167 a46465 6164 a163 02 a173 07": Append(
        b"", 57, 1, "n", False, 1, 3, Parts("dead", 2, 7)
    ),
}


@pytest.mark.parametrize("golden", GOLDEN)
def test_an_append_of_format_1_is_read_and_written_as_ever(golden: str) -> None:
    data = bytes.fromhex(golden)
    assert unpack_append("key", data) == GOLDEN[golden]
    assert pack_append(GOLDEN[golden]) == data


async def test_a_store_in_which_others_hold_the_stream_tells_the_zombie(nats_url: str) -> None:
    async with _opened(nats_url) as old, _opened(nats_url, SMALL, old) as new:
        await _append(old, 1, [b"one"], writer="old")
        await _append(new, 2, [b"sealed"], writer="new", ends=True)
        with pytest.raises(StreamTaken) as caught:
            await _append(old, 2, [b"two"], writer="old")
        assert caught.value.ended


async def _append(
    store: NatsStore, first: int, events: list[bytes], *, writer: str = "node-1", ends: bool = False
) -> None:
    await store.events.append(A, "stream", first, events, head=b"head", writer=writer, ends=ends)


async def _stream_info(store: NatsStore) -> dict[str, dict[str, object]] | None:
    reply = await store._client.request(f"$JS.API.STREAM.INFO.EVENTS_{store._bucket.name}", b"", 5)
    answer = json.loads(reply.data)
    return None if "error" in answer else answer


@asynccontextmanager
async def _opened(
    url: str, bounds: EventLogBounds = SMALL, beside: NatsStore | None = None
) -> AsyncGenerator[NatsStore]:
    name = fresh_name() if beside is None else beside._bucket.name
    store = await NatsStore.from_url(f"{url}/{name}", event_bounds=bounds)
    try:
        yield store
    finally:
        await store.aclose()
