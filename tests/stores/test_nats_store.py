"""`NatsStore`: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import settings
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.runtime.commands.nats_server import NatsServer
from understudy.runtime.telemetry.metric_names import GAUGES, TOTALS
from understudy.stores import (
    Address,
    SessionStore,
    StaleEpoch,
    StoreCorrupt,
    StoreUnavailable,
    StoreURLError,
    StoreVersionError,
    open_store,
)
from understudy.stores.nats import NatsStore, bucket, listing
from understudy.stores.nats.bodies import HEAD_ROOM
from understudy.stores.nats.bucket import Bucket
from understudy.stores.nats.connection import close, connect
from understudy.stores.nats.errors import JetStreamMissing, NatsUnavailable, StorageFull
from understudy.stores.nats.opening import BucketOptions, open_bucket
from understudy.stores.nats.records import record_key
from understudy.stores.nats.settings import NatsSettings
from understudy.stores.testing import ManualTime, StoreContract, store_machine

Servers = Callable[..., NatsServer]
BIG = os.urandom(1000) * 2500


class TestNatsStoreKeepsTheContract(StoreContract):
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, nats_url: str) -> None:
        self.url = f"{nats_url}/{fresh_name()}"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await NatsStore.from_url(self.url, clock=clock)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await NatsStore.from_url(self.url, clock=clock)


class TestNatsStoreThatAsksTheLeaderKeepsTheContract(TestNatsStoreKeepsTheContract):
    """As with several replicas, where every read is answered by the leader of the stream."""

    async def open_store(self, clock: ManualTime) -> SessionStore:
        settings = NatsSettings.from_url(self.url.rpartition("/")[0])
        client = await connect(settings, name="leader")
        bucket = await open_bucket(client, BucketOptions(self.url.rpartition("/")[2]), timeout=5)
        return NatsStore(client, replace(bucket, replicas=3), clock)


class TestNatsStoreWithSnapshotsInPartsKeepsTheContract(TestNatsStoreKeepsTheContract):
    """As if NATS took no more than a few bytes in one message."""

    @pytest.fixture(autouse=True)
    def _small_messages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # "1 MiB" of a snapshot in the contract is 4096 parts or less.
        monkeypatch.setattr(Bucket, "max_value", HEAD_ROOM + 2)
        monkeypatch.setattr("understudy.stores.nats.bodies._MOST_PARTS", 2**20)

    async def test_a_snapshot_comes_back_byte_for_byte(self) -> None:  # type: ignore[override]
        async with self.opened() as store:
            for snapshot in (b"", b"\0", bytes(range(256)), b"123"):
                address = await self.new(store, snapshot=snapshot)
                assert (await self.loaded(store, address)).snapshot == snapshot
                assert (await store.claim(address, owner="node-2")).snapshot == snapshot


async def _open_anywhere(clock: ManualTime) -> SessionStore:
    assert _machine_url is not None
    return await NatsStore.from_url(f"{_machine_url}/{fresh_name()}", clock=clock)


_machine_url: str | None = None
TestNatsStoreAgainstTheModel = store_machine(_open_anywhere, settings=settings(max_examples=15, deadline=None))


@pytest.fixture(scope="module", autouse=True)
def _the_machine_knows_the_server(nats_server: NatsServer) -> object:
    global _machine_url
    _machine_url = nats_server.url
    yield
    _machine_url = None


async def test_of_two_stores_that_claim_at_once_each_epoch_has_one_winner(nats_url: str) -> None:
    async with _opened(nats_url) as first, _opened(nats_url, first) as second:
        address = await _new(first)
        for round_ in range(50):
            claims = await asyncio.gather(first.claim(address, owner="a"), second.claim(address, owner="b"))
            epochs = sorted(record.epoch for record in claims)
            assert epochs == [2 + 2 * round_, 3 + 2 * round_]
            last = max(claims, key=lambda record: record.epoch)
            saves = await asyncio.gather(
                first.save(address, epoch=epochs[0], version=2 + round_, snapshot=b"stale", ttl=60.0),
                second.save(address, epoch=epochs[1], version=2 + round_, snapshot=b"new", ttl=60.0),
                return_exceptions=True,
            )
            assert isinstance(saves[0], StaleEpoch)
            assert saves[1] is None
            record = await first.load(address)
            assert record is not None
            assert (record.owner, record.snapshot) == (last.owner, b"new")


async def test_a_save_of_the_last_writer_is_one_round_trip(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        address = await _new(store)
        before = store._client.stats["out_msgs"]
        for version in range(2, 12):
            await store.save(address, epoch=1, version=version, snapshot=b"x", ttl=60.0)
        assert store._client.stats["out_msgs"] - before == 10


async def test_fifty_saves_share_the_connection(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        addresses = [await _new(store) for _ in range(50)]
        await asyncio.gather(*(store.save(a, epoch=1, version=2, snapshot=b"x", ttl=60.0) for a in addresses))
        assert store.stats()["write_operations"] == 100
        assert store.stats()["calls_running"] == 0


async def test_acknowledged_saves_are_there_after_a_crash_of_the_server(nats_servers: Servers) -> None:
    async with nats_servers() as server, _opened(server.url) as store:
        addresses = [await _new(store) for _ in range(20)]
        acknowledged = dict.fromkeys(addresses, 1)

        async def keep_saving(address: Address) -> None:
            for version in range(2, 10_000):
                try:
                    await store.save(address, epoch=1, version=version, snapshot=b"%d" % version, ttl=600.0)
                except StoreUnavailable:
                    return
                acknowledged[address] = version

        async with asyncio.TaskGroup() as tasks:
            for address in addresses:
                tasks.create_task(keep_saving(address))
            while min(acknowledged.values()) < 5:
                await asyncio.sleep(0.001)
            server.kill()
        await server.start()
        await _until_connected(store)
        for address, version in acknowledged.items():
            record = await store.load(address)
            assert record is not None
            # The one in flight may have arrived without an answer: repeating it settles that.
            assert record.version in (version, version + 1)
            await store.save(address, epoch=1, version=version + 1, snapshot=b"%d" % (version + 1), ttl=600.0)


async def test_while_nats_is_away_every_call_says_so_at_once_and_then_works_again(nats_servers: Servers) -> None:
    async with nats_servers() as server, _opened(server.url) as store:
        address = await _new(store)
        server.kill()
        while store.stats()["connected"]:
            await asyncio.sleep(0.001)
        started = time.monotonic()
        for call in _calls(store, address):
            with pytest.raises(StoreUnavailable, match="not connected to NATS") as caught:
                await call()
            assert caught.value.outcome_unknown is False
            assert caught.value.retry_after > 0
        assert time.monotonic() - started < 1
        await server.start()
        await _until_connected(store)
        for call in _calls(store, address):
            await call()
        assert store.stats()["reconnects"] == 1


async def test_a_call_that_is_under_way_when_nats_dies_does_not_wait(nats_servers: Servers) -> None:
    async with nats_servers() as server, _opened(server.url) as store:
        address = await _new(store)
        server.pause()
        async with asyncio.TaskGroup() as tasks:
            save = tasks.create_task(_caught(store.save(address, epoch=1, version=2, snapshot=b"", ttl=9.0)))
            load = tasks.create_task(_caught(store.load(address)))
            await asyncio.sleep(0.05)
            started = time.monotonic()
            server.kill()
        assert time.monotonic() - started < 1
        assert save.result().outcome_unknown is True
        assert load.result().outcome_unknown is False


async def test_a_server_that_hangs_costs_the_timeout_and_an_unknown_outcome(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        store = await NatsStore.open(NatsSettings.from_url(server.url), timeout=0.3)
        first, second = await _new(store), await _new(store)
        server.pause()
        started = time.monotonic()
        save = store.save(first, epoch=1, version=2, snapshot=b"two", ttl=60.0)
        failures = await asyncio.gather(_caught(save), _caught(store.load(second)), _caught(store.ping()))
        assert [failure.outcome_unknown for failure in failures] == [True, False, True]
        assert time.monotonic() - started < 1.0
        server.resume()
        await store.save(first, epoch=1, version=2, snapshot=b"two", ttl=60.0)
        assert (await store.claim(first, owner="node-2")).snapshot == b"two"
        await store.aclose()


async def test_closing_takes_bounded_time_whatever_nats_does(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        client = await connect(NatsSettings.from_url(server.url), name="x")
        bucket = await open_bucket(client, BucketOptions(), timeout=5)
        store = NatsStore(client, bucket, time.time, close_timeout=0.2)
        address = await _new(store)
        server.pause()
        async with asyncio.TaskGroup() as tasks:
            save = tasks.create_task(_caught(store.save(address, epoch=1, version=2, snapshot=b"", ttl=9.0)))
            await asyncio.sleep(0.01)
            started = time.monotonic()
            await store.aclose()
            assert time.monotonic() - started < 2.5
        assert save.result().outcome_unknown is True


async def test_at_the_bound_of_calls_the_next_is_refused_and_those_before_are_done(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        store = await NatsStore.open(NatsSettings.from_url(server.url), max_calls=3)
        address = await _new(store)
        server.pause()
        async with asyncio.TaskGroup() as tasks:
            loads = [tasks.create_task(store.load(address)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailable, match="3 calls to the NATS store") as caught:
                await store.load(address)
            assert caught.value.outcome_unknown is False
            server.resume()
        assert all(load.result() is not None for load in loads)
        await store.aclose()


async def test_a_full_disk_refuses_what_does_not_fit_fails_ping_and_heals(nats_servers: Servers) -> None:
    async with nats_servers(max_file_store=3_000_000) as server, _opened(server.url) as store:
        small = await _new(store)
        kept: list[Address] = []

        async def fill() -> None:
            while len(kept) < 100:
                kept.append(await _new(store, snapshot=b"x" * 100_000))

        with pytest.raises(StorageFull, match=r"no room.*max_file_store") as caught:
            await fill()
        assert caught.value.outcome_unknown is False
        assert len(kept) > 10
        with pytest.raises(StorageFull):
            await store.save(small, epoch=1, version=2, snapshot=b"x" * 500_000, ttl=600.0)
        before = await store._bucket.count()
        with pytest.raises(StorageFull):
            await store.save(small, epoch=1, version=2, snapshot=BIG, ttl=600.0)
        assert await store._bucket.count() == before, "the parts that had found room are gone again"
        record = await store.load(small)
        assert record is not None
        assert record.version == 1
        for address in kept:
            await store.delete(address)
        await store.ping()
        await store.save(small, epoch=1, version=2, snapshot=b"two", ttl=600.0)


async def test_a_full_bucket_forgets_no_session(nats_url: str) -> None:
    async with _opened(nats_url, options="?max_bytes=5000") as store:
        kept: list[Address] = []

        async def fill() -> None:
            while len(kept) < 100:
                kept.append(await _new(store))

        with pytest.raises(StorageFull, match="max_bytes"):
            await fill()
        # What is smaller than a record may still fit, but not for ever.
        with pytest.raises(StorageFull):
            await store._bucket.put("s.filler", b"x" * 5000)
        assert kept
        for address in kept:
            assert await store.load(address) is not None


async def test_a_large_snapshot_is_whole_and_leaves_nothing_behind(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        address = await _new(store, snapshot=BIG)
        assert (await store.claim(address, owner="node-2")).snapshot == BIG
        assert await store._bucket.count() == 1 + 3
        await store.save(address, epoch=2, version=2, snapshot=BIG[1:], ttl=600.0)
        await store.touch(address, epoch=2, ttl=900.0)
        record = await store.load(address)
        assert record is not None
        assert record.snapshot == BIG[1:]
        assert await store._bucket.count() == 1 + 3
        await store.save(address, epoch=2, version=3, snapshot=b"small", ttl=600.0)
        assert await store._bucket.count() == 1
        await store.save(address, epoch=2, version=4, snapshot=BIG, ttl=600.0)
        assert await store.delete(address) is True
        assert await store._bucket.count() == 0


async def test_a_large_save_that_loses_its_race_leaves_no_parts(nats_url: str) -> None:
    async with _opened(nats_url) as first, _opened(nats_url, first) as second:
        address = await _new(first)
        await second.claim(address, owner="node-2")
        with pytest.raises(StaleEpoch):
            await first.save(address, epoch=1, version=2, snapshot=BIG, ttl=600.0)
        assert await first._bucket.count() == 1


async def test_a_reader_of_a_large_snapshot_sees_the_old_one_or_the_new_one(nats_url: str) -> None:
    async with _opened(nats_url) as writer, _opened(nats_url, writer) as reader:
        address = await _new(writer, snapshot=b"a" * 1_500_000)

        async def write() -> None:
            for version in range(2, 12):
                letter = b"%c" % (96 + version)
                await writer.save(address, epoch=1, version=version, snapshot=letter * 1_500_000, ttl=600.0)

        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write())
            seen: set[bytes] = set()
            while not writing.done():
                record = await reader.load(address)
                assert record is not None
                assert record.snapshot == record.snapshot[:1] * 1_500_000
                assert record.snapshot[:1] == b"%c" % (96 + record.version)
                seen.add(record.snapshot[:1])
        assert len(seen) > 1


async def test_nothing_of_a_record_is_left_when_it_was_deleted(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        for _ in range(20):
            address = await _new(store)
            await store.delete(address)
        assert await store._bucket.count() == 0


async def test_nats_itself_removes_expired_records_and_the_parts_of_crashed_writers(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.stores.nats.revisions.MARGIN", 0.0)
    async with _opened(nats_url) as store:
        await store.create(Address.new("session"), tenant="acme", owner="n", snapshot=BIG, ttl=0.5)
        kept = await _new(store)
        assert await store._bucket.count() == 5
        deadline = time.monotonic() + 15
        while await store._bucket.count() > 1 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert await store._bucket.count() == 1
        assert await store.load(kept) is not None


async def test_a_sweep_asks_nats_for_nothing_while_the_clock_tells_the_time(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        before = store._client.stats["out_msgs"]
        assert await store.expire() == 0
        assert store._client.stats["out_msgs"] == before


async def test_the_list_is_the_same_when_keys_come_shard_by_shard(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _opened(nats_url) as store:
        addresses = {await _new(store, tenant=f"tenant-{n % 3}") for n in range(150)}
        at_once = await _walk(store, limit=70)
        monkeypatch.setattr(listing, "_FEW", 0)
        assert await _walk(store, limit=40) == at_once
        assert {info.address for info in at_once} == addresses
        monkeypatch.setattr(bucket, "_BATCH", 7)
        monkeypatch.setattr(bucket, "_BATCH_BYTES", 300)
        assert await _walk(store, limit=40) == at_once
        one = [info for info in at_once if info.tenant == "tenant-1"]
        page = await store.list(tenant="tenant-1", limit=1000)
        assert list(page.records) == one


async def test_a_marker_that_a_nats_tool_left_is_no_record(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        address = await _new(store)
        js = store._client.jetstream()
        kv = await js.key_value(store._bucket.name)
        await kv.delete(record_key(address))
        assert await store.load(address) is None
        assert (await store.list()).records == ()
        record = await store.create(address, tenant="acme", owner="n", snapshot=b"new", ttl=60.0)
        assert record.epoch == 1
        assert await store.load(address) == record


async def test_a_value_that_is_damaged_or_newer_is_refused_and_left(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        for value, expected in ((b"\xc1", StoreCorrupt), (b"\x93\x63\x01\x02", StoreVersionError), (b"", StoreCorrupt)):
            address = await _new(store)
            await store._bucket.put(record_key(address), value)
            with pytest.raises(expected, match=address.id):
                await store.load(address)
            with pytest.raises(expected):
                await store.claim(address, owner="node-2")
            entry = await store._bucket.get(record_key(address))
            assert entry is not None
            assert entry.value == value
            await store._bucket.remove(entry.revision)
        await store.ping()


async def test_a_bucket_of_somebody_else_is_refused_and_left(nats_url: str) -> None:
    client = await connect(NatsSettings.from_url(nats_url), name="x")
    name = fresh_name()
    await client.jetstream().create_key_value(bucket=name)  # type: ignore[arg-type]
    with pytest.raises(StoreCorrupt, match="not understudy's"):
        await NatsStore.from_url(f"{nats_url}/{name}")
    await close(client)


@pytest.mark.parametrize(
    ("change", "expected", "says"),
    [
        ({"metadata": {"understudy.format": "2"}}, StoreVersionError, "format 2"),
        ({"discard": "old"}, StoreCorrupt, "discard is 'old' and must be 'new'"),
        ({"max_age": 10**12}, StoreCorrupt, "max_age"),
        ({"allow_direct": False}, StoreCorrupt, "allow_direct"),
    ],
)
async def test_a_bucket_that_was_changed_is_refused(
    nats_url: str, change: dict[str, object], expected: type[Exception], says: str
) -> None:
    async with _opened(nats_url) as store:
        info = await store._bucket.api("STREAM.INFO", {}, "x")
        assert info is not None
        await store._bucket.api("STREAM.UPDATE", info["config"] | change, "x")
        with pytest.raises(expected, match=says):
            await NatsStore.from_url(f"{nats_url}/{store._bucket.name}")


async def test_a_url_that_does_not_agree_with_the_bucket_is_refused(nats_url: str) -> None:
    async with _opened(nats_url, options="?storage=file&replicas=1") as store:
        for option, says in (("replicas=3", "has replicas=1, not 3"), ("storage=memory", "has storage=file, not mem")):
            with pytest.raises(StoreURLError, match=says):
                await NatsStore.from_url(f"{nats_url}/{store._bucket.name}?{option}")


@pytest.mark.parametrize("interval", ["always", "2m"])
async def test_what_a_loss_of_power_costs_is_said_where_it_may(
    nats_servers: Servers, caplog: pytest.LogCaptureFixture, interval: str
) -> None:
    async with nats_servers(sync_interval=interval) as server:
        with caplog.at_level(logging.INFO, "understudy"):
            async with _opened(server.url):
                pass
    assert ("a loss of power loses" in caplog.text) == (interval == "2m")


async def test_storage_in_memory_is_warned_about(nats_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "understudy"):
        async with _opened(nats_url, options="?storage=memory"):
            pass
    assert "sessions are lost with its server" in caplog.text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/a/b", "bucket 'a/b'"),
        ("/a%20b", "bucket 'a%20b'"),
        ("/x?replicas=0", "replicas=0"),
        ("/x?replicas=six", "replicas='six'"),
        ("/x?storage=tape", "storage='tape'"),
        ("/x?max_bytes=0", "max_bytes=0"),
        ("/x?colour=red", "unknown option 'colour'"),
        ("/x?replicas=1&replicas=1", "twice"),
    ],
)
async def test_a_url_that_makes_no_sense_is_refused(nats_url: str, path: str, says: str) -> None:
    with pytest.raises(StoreURLError, match=says):
        await open_store(nats_url + path)


async def test_nats_urls_open_this_store(nats_url: str) -> None:
    store = await open_store(f"{nats_url}/{fresh_name()}")
    assert isinstance(store, NatsStore)
    assert store.shared is True
    await store.aclose()


async def test_a_store_knows_itself_by_any_url(nats_url: str) -> None:
    localhost = nats_url.replace("127.0.0.1", "localhost")
    async with _opened(nats_url) as first, _opened(nats_url) as other, _opened(localhost, first) as same:
        assert same.identity == first.identity != other.identity


async def test_a_server_without_jetstream_is_told(nats_servers: Servers) -> None:
    async with nats_servers(jetstream=False) as server:
        with pytest.raises(JetStreamMissing, match="start nats-server with -js"):
            await open_store(server.url)


async def test_a_server_that_takes_too_little_is_told(nats_servers: Servers) -> None:
    async with nats_servers(max_payload=8192) as server:
        with pytest.raises(NatsUnavailable, match="max_payload of NATS is 8192"):
            await open_store(server.url)


async def test_every_number_has_a_meaning(nats_url: str) -> None:
    async with _opened(nats_url) as store:
        names = {f"store_{name}" for name in store.stats()}
    assert names <= set(GAUGES) | set(TOTALS)


async def test_three_servers_with_three_replicas_lose_nothing_with_one_of_them(nats_servers: Servers) -> None:
    servers = await _cluster(nats_servers)
    try:
        url = ",".join(server.url for server in servers)
        async with _opened(url, options="?replicas=3") as store:
            addresses = [await _new(store) for _ in range(20)]
            for address in addresses:
                await store.claim(address, owner="node-2")
            info = await store._bucket.api("STREAM.INFO", {}, "x")
            assert info is not None
            (leader,) = (s for n, s in enumerate(servers) if info["cluster"]["leader"] == f"s{n}")
            leader.kill()
            for address in addresses:
                deadline = time.monotonic() + 30
                while True:
                    try:
                        await store.save(address, epoch=2, version=2, snapshot=b"two", ttl=60.0)
                        break
                    except StoreUnavailable:
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.1)
            for address in addresses:
                record = await store.load(address)
                assert record is not None
                assert (record.epoch, record.snapshot) == (2, b"two")
            assert len((await store.list()).records) == 20
            assert [await store.delete(address) for address in addresses] == [True] * 20
            assert [await store.delete(address) for address in addresses] == [False] * 20
    finally:
        for server in servers:
            server.kill()


async def _cluster(nats_servers: Servers) -> list[NatsServer]:
    from support import free_port

    ports = [free_port() for _ in range(3)]
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    servers = [
        nats_servers(
            more={"server_name": f"s{n}", "cluster": {"name": "c", "listen": f"127.0.0.1:{port}", "routes": routes}}
        )
        for n, port in enumerate(ports)
    ]
    await asyncio.gather(*(server.start() for server in servers))
    client = await connect(NatsSettings.from_url(servers[0].url), name="x")
    deadline = time.monotonic() + 30
    while True:
        try:
            bucket = await open_bucket(client, BucketOptions("probe", replicas=3), timeout=2)
            await bucket.put("k", b"v")
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
    await close(client)
    return servers


@asynccontextmanager
async def _opened(url: str, beside: NatsStore | None = None, *, options: str = "") -> AsyncGenerator[NatsStore]:
    name = fresh_name() if beside is None else beside._bucket.name
    store = await NatsStore.from_url(f"{url}/{name}{options}")
    try:
        yield store
    finally:
        await store.aclose()


async def _new(store: NatsStore, *, tenant: str = "acme", snapshot: bytes = b"one") -> Address:
    address = Address.new("session")
    await store.create(address, tenant=tenant, owner="node-1", snapshot=snapshot, ttl=600.0)
    return address


async def _walk(store: NatsStore, *, limit: int) -> list[object]:
    found: list[object] = []
    cursor = None
    while True:
        page = await store.list(cursor=cursor, limit=limit)
        found += page.records
        cursor = page.cursor
        if cursor is None:
            return found


async def _until_connected(store: NatsStore) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await store.ping()
                return
            except StoreUnavailable:
                await asyncio.sleep(0.01)


async def _caught(call: object) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        await call  # type: ignore[misc]
    return caught.value


def _calls(store: NatsStore, address: Address) -> list[Callable[[], object]]:
    return [
        lambda: _new(store),
        lambda: store.load(address),
        lambda: store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0),
        lambda: store.touch(address, epoch=1, ttl=60.0),
        lambda: store.list(),
        lambda: store.ping(),
        lambda: store.claim(address, owner="node-2"),
        lambda: store.delete(address),
    ]
