"""`RedisEventLog`: the contract, and what is its own."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from support.fault_proxy import FaultProxy
from support.redis import RedisCluster, RedisServer, fresh_prefix
from understudy.stores import Address, EventLogBounds, SessionStore, StoreUnavailable
from understudy.stores.event_log import STREAM_OVERHEAD
from understudy.stores.redis import RedisStore
from understudy.stores.redis.errors import RedisFull
from understudy.stores.testing import EventLogContract, ManualTime


class TestRedisEventLogKeepsTheContract(EventLogContract):
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url = f"{redis_url}?prefix={fresh_prefix()}"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await RedisStore.from_url(self.url, clock=clock, event_bounds=self.bounds)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)


class TestRedisEventLogInAClusterKeepsTheContract(TestRedisEventLogKeepsTheContract):
    @pytest.fixture(autouse=True)
    def _place(self, redis_cluster: RedisCluster) -> None:  # type: ignore[override]
        self.url = f"{redis_cluster.url}?prefix={fresh_prefix()}"


@asynccontextmanager
async def _opened(url: str, clock: Callable[[], float] = time.time, **bounds: float) -> AsyncGenerator[RedisStore]:
    store = await RedisStore.from_url(url, clock=clock, event_bounds=EventLogBounds(**bounds))  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()


def _keys(server: RedisServer, prefix: str) -> list[bytes]:
    return sorted(server.command("KEYS", f"*{prefix}*"))


async def test_what_streams_hold_is_counted_through_every_change(redis_server: RedisServer) -> None:
    prefix, clock = fresh_prefix(), ManualTime()
    url = f"{redis_server.url}?prefix={prefix}"
    bounds = {"max_events": 5, "max_bytes": 2000, "max_age": 50, "max_total_bytes": 100_000}
    async with _opened(url, clock, **bounds) as one, _opened(url, clock, **bounds) as other:

        def check() -> None:
            total = sum(int(redis_server.command("GET", key)) for key in _keys(redis_server, f"{prefix}:??}}:b"))
            counted = 0
            for key in _keys(redis_server, f"{prefix}:??}}:m:"):
                held = redis_server.command("LRANGE", key.replace(b":m:", b":l:"), 0, -1)
                counted += sum(map(len, held)) + redis_server.command("HSTRLEN", key, "h") + STREAM_OVERHEAD
                assert int(redis_server.command("HGET", key, "b")) == sum(map(len, held)) <= 2000
                assert len(held) <= 5
            assert total == counted

        addresses = [Address.new("session") for _ in range(12)]
        for step in range(60):
            address, log = addresses[step * 7 % 12], (one, other)[step % 2].events
            logged = await log.read(address, "stream")
            last = 0 if logged is None else logged.last
            events = [bytes(step * 37 % 900)] * (step % 8)
            await log.append(address, "stream", last + 1, events, head=bytes(step % 9), writer="w")
            if step % 11 == 0:
                await log.drop([(addresses[step % 12], "stream")])
            if step % 13 == 0:
                clock.advance(20)
                await log.expire()
            check()
        clock.advance(1000)
        assert await one.events.expire() > 0
        assert _keys(redis_server, prefix) == [f"{prefix}:schema".encode()]


async def test_a_node_makes_room_within_its_own_appends(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    async with _opened(f"{redis_server.url}?prefix={prefix}", max_total_bytes=2**20) as store:
        log = store.events
        addresses = [Address.new("session") for _ in range(100)]
        for address in addresses:
            await log.append(address, "stream", 1, [bytes(30_000)], head=b"", writer="w")
            held = sum(int(redis_server.command("GET", key)) for key in _keys(redis_server, f"{prefix}:??}}:b"))
            assert held <= 2**20
        kept = [address for address in addresses if await log.read(address, "stream")]
        assert kept == addresses[-len(kept) :]
        assert len(kept) > 20
        assert log.stats()["evicted_streams_total"] == 100 - len(kept)


async def test_nodes_that_append_side_by_side_keep_the_bound_together(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    url = f"{redis_server.url}?prefix={prefix}"
    async with _opened(url, max_total_bytes=2**20) as one, _opened(url, max_total_bytes=2**20) as other:
        for _ in range(60):
            for store in (one, other):
                await store.events.append(Address.new("session"), "s", 1, [bytes(30_000)], head=b"", writer="w")
        held = sum(int(redis_server.command("GET", key)) for key in _keys(redis_server, f"{prefix}:??}}:b"))
        assert held <= 2**20 * 1.5
        await one.events.expire()
        held = sum(int(redis_server.command("GET", key)) for key in _keys(redis_server, f"{prefix}:??}}:b"))
        assert held <= 2**20


async def test_a_stream_that_was_appended_to_while_room_was_made_stays(redis_server: RedisServer) -> None:
    async with _opened(f"{redis_server.url}?prefix={fresh_prefix()}") as store:
        log, address = store.events, Address.new("session")
        await log.append(address, "stream", 1, [b"one"], head=b"", writer="w")
        ((_, shard, stream, size, time_told),) = await log._room._oldest()
        await log.append(address, "stream", 2, [b"two"], head=b"", writer="w")
        assert not await log._room._evict(0.0, shard, stream, size, time_told)
        logged = await log.read(address, "stream")
        assert logged is not None
        assert logged.events == (b"one", b"two")


async def test_of_a_long_append_only_what_is_kept_is_sent(redis_server: RedisServer) -> None:
    async with _opened(f"{redis_server.url}?prefix={fresh_prefix()}", max_events=10, max_bytes=1000) as store:
        log, address = store.events, Address.new("session")
        before = int(redis_server.info("stats")["total_net_input_bytes"])
        await log.append(address, "stream", 1, [bytes(200)] * 5000, head=b"", writer="w")
        assert int(redis_server.info("stats")["total_net_input_bytes"]) - before < 100_000
        logged = await log.read(address, "stream")
        assert logged is not None
        assert (logged.last, logged.oldest, len(logged.events)) == (5000, 4996, 5)
        # The same with some of it there already, and more behind.
        await log.append(
            address, "stream", 4990, [b"%d" % number for number in range(4990, 5020)], head=b"", writer="w"
        )
        logged = await log.read(address, "stream")
        assert logged is not None
        assert logged.events == tuple(b"%d" % number for number in range(5010, 5020))
        # Ten are sent, and of those four are there.
        await log.append(
            address, "stream", 5005, [b"%d" % number for number in range(5005, 5026)], head=b"", writer="w"
        )
        logged = await log.read(address, "stream")
        assert logged is not None
        assert logged.events == tuple(b"%d" % number for number in range(5016, 5026))


async def test_an_append_whose_answer_is_lost_is_settled_by_repeating_it(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    async with (
        FaultProxy(redis_server.port) as proxy,
        _opened(f"redis://127.0.0.1:{proxy.port}?prefix={prefix}") as store,
    ):
        log, address = store.events, Address.new("session")
        await log.append(address, "stream", 1, [b"one"], head=b"", writer="w")
        proxy.cut_after(3, "down")
        with pytest.raises(StoreUnavailable) as caught:
            await log.append(address, "stream", 2, [b"two"], head=b"", writer="w")
        assert caught.value.outcome_unknown
        await log.append(address, "stream", 2, [b"two", b"three"], head=b"", writer="w")
        logged = await log.read(address, "stream")
        assert logged is not None
        assert logged.events == (b"one", b"two", b"three")


async def test_no_memory_left_refuses_an_append_whole(redis_servers: Callable[..., RedisServer]) -> None:
    with redis_servers() as server:
        async with _opened(server.url) as store:
            log, address = store.events, Address.new("session")
            await log.append(address, "stream", 1, [bytes(200_000)], head=b"", writer="w")
            before = await log.read(address, "stream")
            server.command("CONFIG", "SET", "maxmemory", int(server.info("memory")["used_memory"]) - 50_000)
            with pytest.raises(RedisFull):
                await log.append(address, "stream", 2, [b"two"], head=b"", writer="w")
            with pytest.raises(RedisFull):
                await log.append(address, "other", 1, [b"one"], head=b"", writer="w")
            assert await log.read(address, "stream") == before
            assert await log.read(address, "other") is None
            await log.drop([(address, "stream")])
            await log.append(address, "other", 1, [b"one"], head=b"", writer="w")


async def test_streams_that_no_node_sweeps_go_by_themselves(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    async with _opened(f"{redis_server.url}?prefix={prefix}", max_age=60) as store:
        await store.events.append(Address.new("session"), "stream", 1, [b"one"], head=b"", writer="w")
        keys = [key for part in ("m", "l", "n") for key in _keys(redis_server, f"{prefix}:??}}:{part}:")]
        assert len(keys) == 3
        for key in keys:
            assert 86_400_000 < redis_server.command("PTTL", key) <= 86_460_000
