"""`RedisStore`: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
from hypothesis import settings
from support.patience import PATIENCE
from support.redis import RedisCluster, RedisServer, fresh_prefix, wait_until
from understudy.runtime.telemetry.metric_names import GAUGES, TOTALS
from understudy.stores import Address, SessionStore, StoreUnavailable
from understudy.stores.redis import RedisStore
from understudy.stores.redis.cluster import ClusterRoute
from understudy.stores.redis.keys import shard_of, slot_of
from understudy.stores.redis.settings import RedisSettings
from understudy.stores.testing import ManualTime, StoreContract, store_machine


class TestRedisStoreKeepsTheContract(StoreContract):
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url = f"{redis_url}?prefix={fresh_prefix()}"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await RedisStore.from_url(self.url, clock=clock)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await RedisStore.from_url(self.url, clock=clock)


_machine_url: str | None = None


async def _open_anywhere(clock: ManualTime) -> SessionStore:
    return await RedisStore.from_url(f"{_machine_url}?prefix={fresh_prefix()}", clock=clock)


TestRedisStoreAgainstTheModel = store_machine(_open_anywhere, settings=settings(max_examples=15, deadline=None))


@pytest.fixture(scope="module", autouse=True)
def _the_machine_knows_the_server(redis_server: RedisServer) -> Iterator[None]:
    global _machine_url
    _machine_url = redis_server.url
    yield
    _machine_url = None


class TestRedisStoreByTheClockOfRedisKeepsTheContract(StoreContract):
    """As it runs outside of tests. The sentences that have to wait for time to pass."""

    lifetime: ClassVar[float] = 0.15
    tolerance: ClassVar[float] = 0.5
    url: str

    def setup_method(self) -> None:
        super().setup_method()
        self.clock = _RealTime()

    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url = f"{redis_url}?prefix={fresh_prefix()}"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await RedisStore.from_url(self.url)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # Its writes take longer than its lifetime may be on a busy machine, or it makes time jump.
    test_a_sweep_takes_expired_records_only = None
    test_a_save_replaces_the_snapshot_and_renews_the_record = None
    test_a_touch_moves_the_expiry_and_nothing_else = None


class _RealTime(ManualTime):
    def __call__(self) -> float:
        return time.time()


class TestRedisStoreInAClusterKeepsTheContract(TestRedisStoreKeepsTheContract):
    @pytest.fixture(autouse=True)
    def _place(self, redis_cluster: RedisCluster) -> None:  # type: ignore[override]
        self.url = f"{redis_cluster.url}?prefix={fresh_prefix()}"


@asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[RedisStore]:
    store = await RedisStore.from_url(url)
    try:
        yield store
    finally:
        await store.aclose()


async def _new(store: SessionStore, tenant: str = "acme") -> Address:
    address = Address.new("session")
    await store.create(address, tenant=tenant, owner="node-1", snapshot=b"one", ttl=600.0)
    return address


async def test_a_cluster_has_records_on_each_of_its_primaries(redis_cluster: RedisCluster) -> None:
    prefix = fresh_prefix()
    async with _opened(f"{redis_cluster.url}?prefix={prefix}") as store:
        addresses = {await _new(store) for _ in range(60)}
        for server in redis_cluster.servers:
            assert len(server.command("KEYS", f"{{{prefix}:*}}:r:*")) > 3
            assert len(server.command("KEYS", f"{{{prefix}:*}}:probe")) == 0
        await store.ping()
        for server in redis_cluster.servers:
            assert len(server.command("KEYS", f"{{{prefix}:*}}:probe")) == 1
        assert {info.address for info in (await store.list(limit=1000)).records} == addresses


async def test_a_slot_that_moves_to_another_primary_is_followed(redis_cluster: RedisCluster) -> None:
    prefix = fresh_prefix()
    async with _opened(f"{redis_cluster.url}?prefix={prefix}") as store:
        address = await _new(store)
        shard, text = shard_of(address)
        slot, key = store._keys.slots[shard], store._keys.record[shard] + text
        source = next(server for server in redis_cluster.servers if server.command("EXISTS", key) == 1)
        target = next(server for server in redis_cluster.servers if server is not source)
        for giver, taker in ((source, target), (target, source)):
            before = await store.load(address)
            ids = {server: server.command("CLUSTER", "MYID") for server in redis_cluster.servers}
            taker.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[giver])
            giver.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[taker])
            moved = giver.command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            assert key in moved
            for one in moved:
                assert giver.command("MIGRATE", "127.0.0.1", taker.port, one, 0, 5000) == b"OK"
            # The map says that it is still at the giver, who sends us on (ASK).
            assert await store.load(address) == before
            record = await store.claim(address, owner="node-2")
            for server in (taker, giver, *redis_cluster.servers):
                server.command("CLUSTER", "SETSLOT", slot, "NODE", ids[taker])
            # Now it sends us away for good (MOVED).
            await store.save(address, epoch=record.epoch, version=record.version + 1, snapshot=b"moved", ttl=600.0)
            assert taker.command("HGET", key, "s") == b"moved"


async def test_nodes_of_a_cluster_that_do_not_tell_their_names_are_where_it_was_reached(
    redis_cluster: RedisCluster,
) -> None:
    for server in redis_cluster.servers:
        assert server.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint") == b"OK"
    try:
        async with _opened(f"{redis_cluster.url}?prefix={fresh_prefix()}") as store:
            addresses = [await _new(store) for _ in range(30)]
            assert all(await asyncio.gather(*(store.load(address) for address in addresses)))
    finally:
        for server in redis_cluster.servers:
            server.command("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_a_cluster_that_has_moved_altogether_is_found_by_its_url(redis_cluster: RedisCluster) -> None:
    async with _opened(f"{redis_cluster.url}?prefix={fresh_prefix()}") as store:
        addresses = [await _new(store) for _ in range(10)]
        route = store._route
        assert isinstance(route, ClusterRoute)
        assert route._map is not None
        for node in route._map.startup_nodes.values():
            await node.disconnect()
            node.connection_kwargs["port"] = 1
            node._free.clear()
        route._stale = True
        assert all(await asyncio.gather(*(store.load(address) for address in addresses)))


async def test_a_primary_of_a_cluster_that_is_away_costs_its_own_records_only(redis_cluster: RedisCluster) -> None:
    async with _opened(f"{redis_cluster.url}?prefix={fresh_prefix()}") as store:
        addresses = [await _new(store) for _ in range(30)]
        away = redis_cluster.servers[2]
        away.kill()
        outcomes = await asyncio.gather(*(store.load(address) for address in addresses), return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
        assert 0 < len(failed) < 30
        with pytest.raises(StoreUnavailable):
            await store.ping()
        away.start()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert all(await asyncio.gather(*(store.load(address) for address in addresses)))
                    await store.ping()
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
        await asyncio.to_thread(
            wait_until,
            lambda: all(b"cluster_state:ok" in s.command("CLUSTER", "INFO") for s in redis_cluster.servers),
        )


async def test_each_call_is_one_command_to_redis(redis_servers: Callable[..., RedisServer]) -> None:
    with redis_servers() as server:
        async with _opened(server.url) as store:
            address = await _new(store)

            def sent() -> int:
                lines = server.info("commandstats")
                return int(lines["cmdstat_evalsha"].split(",")[0].removeprefix("calls="))

            before = sent()
            await store.claim(address, owner="node-2")
            await store.save(address, epoch=2, version=2, snapshot=b"two", ttl=60.0)
            await store.touch(address, epoch=2, ttl=90.0)
            await store.load(address)
            await store.delete(address, epoch=2)
            assert sent() - before == 5
            assert "cmdstat_eval" not in server.info("commandstats")


async def test_calls_of_one_moment_leave_together(redis_servers: Callable[..., RedisServer]) -> None:
    with redis_servers() as server:
        async with _opened(server.url) as store:
            addresses = [await _new(store) for _ in range(100)]

            def reads() -> int:
                return int(server.info("stats")["total_reads_processed"])

            before = reads()
            assert all(await asyncio.gather(*(store.load(address) for address in addresses)))
            # Four pipelines, and the question itself.
            assert 0 < reads() - before <= 8


async def test_calls_for_one_record_keep_their_order(redis_url: str) -> None:
    async with _opened(f"{redis_url}?prefix={fresh_prefix()}") as store:
        addresses = [await _new(store) for _ in range(5)]
        # Each save but the first is refused unless the one before it has been done.
        await asyncio.gather(
            *(
                store.save(address, epoch=1, version=version, snapshot=b"%d" % version, ttl=60.0)
                for version in range(2, 60)
                for address in addresses
            )
        )
        for address in addresses:
            record = await store.load(address)
            assert record is not None
            assert record.snapshot == b"59"


async def test_a_deleted_and_an_expired_record_leave_nothing_behind(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    clock = ManualTime()
    store = await RedisStore.open(RedisSettings.from_url(f"{redis_server.url}?prefix={prefix}"), clock=clock)
    addresses = [await _new(store) for _ in range(10)]
    assert len(redis_server.command("KEYS", f"*{prefix}*")) > 10
    await store.save(addresses[0], epoch=1, version=2, snapshot=b"two", ttl=50_000.0)
    for address in addresses[5:]:
        assert await store.delete(address)
    clock.advance(10_000)
    assert await store.expire() == 4
    assert await store.load(addresses[0]) is not None
    assert await store.delete(addresses[0])
    assert redis_server.command("KEYS", f"*{prefix}*") == [f"{prefix}:schema".encode()]
    await store.aclose()


async def test_a_record_that_no_node_sweeps_goes_by_itself(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    async with _opened(f"{redis_server.url}?prefix={prefix}") as store:
        address = await _new(store)
        await store.touch(address, epoch=1, ttl=90.0)
        (key,) = redis_server.command("KEYS", f"*{prefix}*:r:*")
        assert 145_000 < redis_server.command("PTTL", key) <= 150_000
        redis_server.command("DEL", key)  # as Redis does then
        assert (await store.list()).records == ()
        assert redis_server.command("KEYS", f"*{prefix}*:[ix]") == []


async def test_two_stores_with_different_prefixes_see_nothing_of_each_other(redis_url: str) -> None:
    urls = [f"{redis_url}?prefix={fresh_prefix()}" for _ in range(2)]
    async with _opened(urls[0]) as one, _opened(urls[1]) as other:
        address = await _new(one)
        assert await other.load(address) is None
        assert (await other.list()).records == ()
        assert one.identity != other.identity


async def test_the_numbers_of_the_store_are_named_as_metrics(redis_url: str) -> None:
    async with _opened(f"{redis_url}?prefix={fresh_prefix()}") as store:
        for name in store.stats():
            assert f"store_{name}" in GAUGES or f"store_{name}" in TOTALS, name


def test_the_slot_of_a_key_is_as_the_specification_has_it() -> None:
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers") == slot_of(b"user1000")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
    assert slot_of(b"foo{bar}{zap}") == slot_of(b"bar")
