"""`RedisStore` when Redis, the network or the settings are not as they should be."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.certificates import self_signed
from support.fault_proxy import FaultProxy
from support.patience import PATIENCE
from support.ports import free_port
from support.redis import RedisServer, fresh_prefix, wait_until
from support.serving import serving
from understudy.stores import (
    Address,
    Record,
    SessionStore,
    StaleEpoch,
    StoreCorrupt,
    StoreUnavailable,
    StoreVersionError,
    open_store,
)
from understudy.stores.redis import RedisStore
from understudy.stores.redis.errors import RedisFull, RedisRefused, RedisUnavailable
from understudy.stores.redis.route import OneServer
from understudy.stores.redis.settings import RedisSettings

Servers = Callable[..., RedisServer]


@asynccontextmanager
async def _opened(url: str, **options: object) -> AsyncGenerator[RedisStore]:
    store = await RedisStore.open(RedisSettings.from_url(url), **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def _proxied(server: RedisServer, **options: object) -> AsyncGenerator[tuple[RedisStore, FaultProxy, RedisStore]]:
    """A store behind a proxy, the proxy, and a store on the same data that has none."""
    prefix = fresh_prefix()
    async with (
        FaultProxy(server.port) as proxy,
        _opened(f"redis://127.0.0.1:{proxy.port}?prefix={prefix}", **options) as store,
        _opened(f"{server.url}?prefix={prefix}") as beside,
    ):
        yield store, proxy, beside


async def _new(store: SessionStore, snapshot: bytes = b"one") -> Address:
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="node-1", snapshot=snapshot, ttl=600.0)
    return address


async def _save(store: SessionStore, address: Address, version: int = 2, snapshot: bytes = b"two") -> None:
    await store.save(address, epoch=1, version=version, snapshot=snapshot, ttl=600.0)


async def _outcome(call: Coroutine[Any, Any, Any]) -> Any:
    """What a call returned, or why it could not."""
    try:
        return await call
    except StoreUnavailable as error:
        return error


async def _back(store: RedisStore) -> None:
    """Return when Redis is within reach again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await store.ping()
                return
            except StoreUnavailable:
                await asyncio.sleep(0.02)


# Faults of the network


@pytest.mark.parametrize("answer", [0, 2])
async def test_a_save_whose_answer_is_lost_says_that_it_may_have_been_done(
    redis_server: RedisServer, answer: int
) -> None:
    async with _proxied(redis_server) as (store, proxy, beside):
        address = await _new(store)
        proxy.cut_after(answer, "down")
        with pytest.raises(StoreUnavailable) as caught:
            await _save(store, address)
        assert caught.value.outcome_unknown
        record = await beside.load(address)
        assert record is not None
        assert record.version == 2
        await _save(store, address)  # the repeat settles it
        assert await beside.load(address) == record


async def test_a_save_that_is_cut_on_its_way_has_not_been_done_and_may_be_repeated(redis_server: RedisServer) -> None:
    async with _proxied(redis_server) as (store, proxy, beside):
        address = await _new(store)
        proxy.cut_after(150, "up")
        with pytest.raises(StoreUnavailable) as caught:
            await _save(store, address, snapshot=b"x" * 1000)
        # From here the two cannot be told apart, so both are in doubt.
        assert caught.value.outcome_unknown
        record = await beside.load(address)
        assert record is not None
        assert record.version == 1
        await _save(store, address)
        assert (await beside.claim(address, owner="node-2")).snapshot == b"two"


async def test_a_claim_whose_answer_is_lost_has_raised_the_epoch_and_the_next_raises_it_again(
    redis_server: RedisServer,
) -> None:
    async with _proxied(redis_server) as (store, proxy, beside):
        address = await _new(store)
        proxy.cut_after(5, "down")
        with pytest.raises(StoreUnavailable) as caught:
            await store.claim(address, owner="node-2")
        assert caught.value.outcome_unknown
        assert (await store.claim(address, owner="node-2")).epoch == 3
        with pytest.raises(StaleEpoch):
            await beside.save(address, epoch=2, version=2, snapshot=b"lost claim", ttl=60.0)


async def test_a_read_that_is_cut_has_changed_nothing(redis_server: RedisServer) -> None:
    async with _proxied(redis_server) as (store, proxy, _):
        address = await _new(store, b"x" * 100_000)
        proxy.cut_after(50_000, "down")
        with pytest.raises(StoreUnavailable) as caught:
            await store.load(address)
        assert not caught.value.outcome_unknown
        assert await store.load(address) is not None


async def test_every_call_on_a_connection_that_breaks_ends_and_none_twice(redis_server: RedisServer) -> None:
    async with _proxied(redis_server) as (store, proxy, beside):
        addresses = [await _new(store) for _ in range(100)]
        proxy.cut_after(200, "down")
        outcomes = await asyncio.gather(*(_save(store, address) for address in addresses), return_exceptions=True)
        assert any(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        for address, outcome in zip(addresses, outcomes, strict=True):
            assert outcome is None or isinstance(outcome, StoreUnavailable), outcome
            record = await beside.load(address)
            assert record is not None
            assert record.version == 2 or outcome is not None
            await _save(store, address)
        assert {(await beside.claim(address, owner="n")).version for address in addresses} == {2}


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_was_cut_while_idle_costs_no_call(redis_server: RedisServer, reset: bool) -> None:
    async with _proxied(redis_server) as (store, proxy, _):
        address = await _new(store)
        for _ in range(3):
            proxy.cut(reset=reset)
            proxy.restore()
            await asyncio.sleep(0.02)
            await store.claim(address, owner="node-2")
        assert store.stats()["reconnects"] >= 3


async def test_a_server_that_hangs_costs_a_call_its_deadline_and_no_more(redis_server: RedisServer) -> None:
    async with _proxied(redis_server, timeout=0.3) as (store, proxy, beside):
        address = await _new(store)
        proxy.stall()
        began = time.monotonic()
        outcomes = await asyncio.gather(_save(store, address), store.load(address), return_exceptions=True)
        assert time.monotonic() - began < 2
        assert [outcome.outcome_unknown for outcome in outcomes if isinstance(outcome, StoreUnavailable)] == [
            True,
            False,
        ]
        proxy.restore()
        await asyncio.sleep(0.3)
        await _save(store, address)
        assert (await beside.claim(address, owner="n")).version == 2


async def test_calls_that_queue_for_a_server_that_hangs_end_with_the_first(redis_server: RedisServer) -> None:
    async with _proxied(redis_server, timeout=0.3) as (store, proxy, _):
        addresses = [await _new(store) for _ in range(10)]
        proxy.stall()
        began = time.monotonic()
        calls = (_save(store, address, version) for version in range(2, 42) for address in addresses)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 2
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        in_doubt = [
            outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable) and outcome.outcome_unknown
        ]
        # What had not been sent was not done.
        assert 0 < len(in_doubt) < 200


async def test_a_store_that_is_closed_in_the_middle_of_calls_says_what_is_in_doubt(redis_server: RedisServer) -> None:
    async with _proxied(redis_server) as (store, proxy, _):
        address = await _new(store)
        proxy.stall()
        store._close_timeout = 0.05
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_outcome(_save(store, address, 2 + number))) for number in range(40)]
            tasks.append(group.create_task(_outcome(store.load(address))))
            await asyncio.sleep(0.02)
            tasks[0].cancel()
            await store.aclose()
        assert tasks[0].cancelled()
        outcomes = [task.result() for task in tasks[1:]]
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes), outcomes
        # 32 have left in one pipeline; the others had to wait for it.
        assert [o.outcome_unknown for o in outcomes if isinstance(o, StoreUnavailable)] == [True] * 31 + [False] * 9
        with pytest.raises(StoreUnavailable, match="is closed"):
            await store.load(address)


async def test_a_slow_answer_that_still_moves_is_waited_for(redis_server: RedisServer) -> None:
    async with _proxied(redis_server, timeout=0.3) as (store, proxy, _):
        address = await _new(store, b"x" * 3_000_000)

        async def stutter() -> None:
            for _ in range(6):
                proxy.stall()
                await asyncio.sleep(0.12)
                proxy.restore()
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:
            group.create_task(stutter())
            record = await store.load(address)
        assert record is not None
        assert len(record.snapshot) == 3_000_000


async def test_a_call_that_is_cancelled_leaves_the_answers_of_others_in_their_order(redis_server: RedisServer) -> None:
    async with _proxied(redis_server) as (store, proxy, _):
        addresses = [await _new(store, b"%d" % number) for number in range(30)]
        proxy.stall()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(store.load(address)) for address in addresses]
            await asyncio.sleep(0.02)
            for task in tasks[::3]:
                task.cancel()
            proxy.restore()
        for number, task in enumerate(tasks):
            if number % 3:
                record = task.result()
                assert record is not None
                assert record.snapshot == b"%d" % number


async def test_no_more_calls_than_the_bound_are_under_way(redis_server: RedisServer) -> None:
    async with _proxied(redis_server, max_calls=16) as (store, proxy, _):
        address = await _new(store)
        proxy.stall()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(store.load(address)) for _ in range(16)]
            await asyncio.sleep(0.02)
            with pytest.raises(StoreUnavailable, match="16 calls") as caught:
                await store.load(address)
            assert not caught.value.outcome_unknown
            proxy.restore()
        assert all(task.result() for task in tasks)


async def test_no_more_bytes_than_the_bound_wait_for_the_network(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.stores.redis.server.MAX_UNANSWERED", 2 * 2**20)
    async with _proxied(redis_server) as (store, proxy, _):
        addresses = [await _new(store) for _ in range(60)]
        proxy.stall()
        tasks: list[asyncio.Task[Any]] = []
        async with asyncio.TaskGroup() as group:
            for address in addresses:
                tasks.append(group.create_task(_outcome(_save(store, address, snapshot=bytes(2**20)))))
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            proxy.restore()
        outcomes = [task.result() for task in tasks]
        refused = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
        assert 0 < len(refused) < 60
        for outcome in refused:
            assert "wait to be sent" in str(outcome)
            assert not outcome.outcome_unknown
        assert [outcome for outcome in outcomes if outcome not in refused] == [None] * (60 - len(refused))


# Faults of the server


async def test_acknowledged_saves_are_there_after_a_crash_of_the_server(redis_servers: Servers) -> None:
    with redis_servers(durable=True) as server:
        async with _opened(server.url) as store:
            addresses = [await _new(store) for _ in range(20)]
            acknowledged = dict.fromkeys(addresses, 1)
            in_doubt = dict.fromkeys(addresses, 0)

            async def keep_saving(address: Address) -> None:
                for version in range(2, 10_000):
                    try:
                        await _save(store, address, version, b"%d" % version)
                    except StoreUnavailable as error:
                        in_doubt[address] = int(error.outcome_unknown)
                        return
                    acknowledged[address] = version

            async with asyncio.TaskGroup() as group:
                for address in addresses:
                    group.create_task(keep_saving(address))
                await asyncio.sleep(0.3)
                server.kill()
            with pytest.raises(StoreUnavailable, match="no Redis at"):
                await asyncio.gather(*(store.load(address) for address in addresses))
            server.start()
            await _back(store)
            for address in addresses:
                record = await store.claim(address, owner="node-2")
                assert acknowledged[address] <= record.version <= acknowledged[address] + in_doubt[address]
                assert record.snapshot in (b"one", b"%d" % record.version)
            assert sum(acknowledged.values()) > 100


async def test_while_redis_is_away_calls_fail_at_once_and_it_comes_back_by_itself(redis_servers: Servers) -> None:
    with redis_servers() as server:
        async with _opened(server.url) as store:
            address = await _new(store)
            server.kill()
            began = time.monotonic()
            for _ in range(50):
                for call in (store.load(address), store.ping(), store.claim(address, owner="n"), store.list()):
                    with pytest.raises(StoreUnavailable) as caught:
                        await call
                    assert not caught.value.outcome_unknown
            assert time.monotonic() - began < 1
            assert store.stats()["connected"] == 0
            server.start()
            await _back(store)
            assert (await store.claim(address, owner="node-2")).epoch == 2


async def test_no_memory_left_refuses_writes_and_lets_reading_and_deleting_go_on(redis_servers: Servers) -> None:
    with redis_servers() as server:
        async with _opened(server.url) as store:
            addresses = [await _new(store, b"x" * 10_000) for _ in range(100)]
            server.command("CONFIG", "SET", "maxmemory", int(server.info("memory")["used_memory"]) - 100_000)
            before = await store.load(addresses[0])
            for call in (
                store.create(Address.new("session"), tenant="", owner="", snapshot=b"x", ttl=60),
                _save(store, addresses[0]),
                store.claim(addresses[0], owner="node-2"),
                store.touch(addresses[0], epoch=1, ttl=60),
                store.touch(addresses[0], epoch=1, ttl=6000),
                store.ping(),
            ):
                with pytest.raises(RedisFull, match="maxmemory") as caught:
                    await call
                assert not caught.value.outcome_unknown
            assert await store.load(addresses[0]) == before
            assert len((await store.list(limit=1000)).records) == 100
            for address in addresses[1:60]:
                assert await store.delete(address)
            assert await store.expire() == 0
            await _save(store, addresses[0])
            assert len((await store.list(limit=1000)).records) == 41


async def test_a_disk_that_cannot_be_written_is_said_and_heals(redis_servers: Servers) -> None:
    options = {"save": "3600 1", "appendonly": "no", "enable-protected-configs": "yes"}
    with redis_servers(options=options) as server:
        async with _opened(server.url) as store:
            address = await _new(store)
            # A directory in the file's place stops root as well.
            (server.directory / "nowhere.rdb").mkdir()
            assert server.command("CONFIG", "SET", "dbfilename", "nowhere.rdb") == b"OK"
            assert not _saves(server)
            for call in (_save(store, address), store.ping(), store.claim(address, owner="n")):
                with pytest.raises(RedisFull, match="disk"):
                    await call
            record = await store.load(address)
            assert record is not None
            assert record.epoch == record.version == 1
            server.command("CONFIG", "SET", "dbfilename", "dump.rdb")
            assert _saves(server)
            await _save(store, address)


def _saves(server: RedisServer) -> bool:
    server.command("BGSAVE")
    for _ in range(1000):
        if server.info("persistence")["rdb_bgsave_in_progress"] == "0":
            break
        time.sleep(0.005)
    return server.info("persistence")["rdb_last_bgsave_status"] == "ok"


async def test_a_script_that_does_not_end_is_said_and_over_when_it_is_killed(redis_servers: Servers) -> None:
    with redis_servers(options={"lua-time-limit": "50"}) as server:
        async with _opened(server.url) as store:
            address = await _new(store)
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(server.command, "EVAL", "while true do end", 0))
                await asyncio.sleep(0.3)
                with pytest.raises(RedisUnavailable, match="busy") as caught:
                    await _save(store, address)
                assert not caught.value.outcome_unknown
                server.command("SCRIPT", "KILL")
            await _save(store, address)


async def test_a_server_that_has_room_for_one_connection_only_is_used_by_that(redis_servers: Servers) -> None:
    with redis_servers(options={"maxclients": "1"}) as server:
        async with _opened(server.url) as store:
            addresses = [await _new(store) for _ in range(100)]
            for _ in range(3):
                assert all(await asyncio.gather(*(store.load(address) for address in addresses)))
            assert store.stats()["connected"] == 1


async def test_a_server_that_loads_its_data_is_said_and_waited_for(redis_servers: Servers) -> None:
    # It answers to nothing between two thousand commands.
    options = {"key-load-delay": "200", "loading-process-events-interval-bytes": "1024"}
    with redis_servers(options=options) as server:
        async with _opened(server.url) as store:
            address = await _new(store)
            server.command("EVAL", "for i = 1, 4000 do redis.call('SET', 'k' .. i, 'x') end", 0)
            server.kill()
            server.start(ready=False)
            said: list[StoreUnavailable] = []
            async with asyncio.timeout(PATIENCE):
                while (record := await _loaded(store, address, said)) is None:
                    await asyncio.sleep(0.02)
            assert record.snapshot == b"one"
            assert any("still loading" in str(error) for error in said), said
            assert not any(error.outcome_unknown for error in said)


async def _loaded(store: SessionStore, address: Address, said: list[StoreUnavailable]) -> Record | None:
    try:
        return await store.load(address)
    except StoreUnavailable as error:
        said.append(error)
        return None


async def test_scripts_that_somebody_flushed_are_learnt_again(redis_server: RedisServer) -> None:
    async with _opened(f"{redis_server.url}?prefix={fresh_prefix()}") as store:
        address = await _new(store)
        redis_server.command("SCRIPT", "FLUSH")
        await _save(store, address)
        assert (await store.claim(address, owner="n")).version == 2


async def test_a_key_that_holds_something_else_is_corrupt_and_left_as_it_is(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    async with _opened(f"{redis_server.url}?prefix={prefix}") as store:
        address = await _new(store)
        (key,) = redis_server.command("KEYS", f"{{{prefix}:*}}:r:{address}")
        redis_server.command("DEL", key)
        redis_server.command("SET", key, "mine")
        for call in (store.load(address), store.claim(address, owner="n"), _save(store, address)):
            with pytest.raises(StoreCorrupt, match="something else"):
                await call
        assert redis_server.command("GET", key) == b"mine"


# Settings


async def test_a_wrong_password_and_a_missing_one_are_told_apart(redis_servers: Servers) -> None:
    with redis_servers(password="pass/word: %@?") as server:
        right = f"redis://:pass%2Fword%3A%20%25%40%3F@127.0.0.1:{server.port}"
        server.password = "pass/word: %@?"
        async with _opened(right) as store:
            await _new(store)
        for url, says in (
            (f"redis://127.0.0.1:{server.port}", "asks for a password"),
            (f"redis://:hunter2@127.0.0.1:{server.port}", "refused our user or password"),
            (f"redis://someone:hunter2@127.0.0.1:{server.port}", "refused our user or password"),
        ):
            began = time.monotonic()
            with pytest.raises(RedisRefused, match=says) as caught:
                await open_store(url)
            assert time.monotonic() - began < 1
            assert "hunter2" not in str(caught.value)
        # The password in front of the hosts is for the servers that the sentinels name.
        with pytest.raises(RedisRefused, match=r"asks for a password.*own password is \?sentinel_password="):
            await open_store(f"{right.replace('redis://', 'redis+sentinel://')}/main")


async def test_a_database_that_redis_has_not_is_told(redis_server: RedisServer) -> None:
    with pytest.raises(RedisRefused, match="no database of the number that ends the store's URL"):
        await open_store(f"redis://127.0.0.1:{redis_server.port}/99")


async def test_a_password_where_none_is_set_is_refused(redis_server: RedisServer) -> None:
    with pytest.raises(RedisRefused, match="has no password"):
        await open_store(f"redis://:hunter2@127.0.0.1:{redis_server.port}")


PERMISSIONS = (
    "+evalsha +eval +script|load +select +client|setname +role +ping +wait +asking +cluster|slots +info +config|get "
    "+time +exists +del +pexpire +get +set +incrby +decrby +hset +hget +hmget +hdel +hstrlen +zadd +zrem +zcount "
    "+zcard +zscore +zrange +zrangebylex +zrangebyscore +sadd +srem +smembers +rpush +lpop +llen +lrange"
)


async def test_a_user_with_the_permissions_that_are_documented_may_do_all_and_with_fewer_is_refused(
    redis_servers: Servers,
) -> None:
    readme = (Path(__file__).parents[2] / "stores" / "README.md").read_text()
    assert " ".join(PERMISSIONS.split()) in " ".join(readme.split())
    with redis_servers() as server:
        rules = PERMISSIONS.split()
        server.command("ACL", "SETUSER", "app", "on", ">secret", "resetkeys", "~{understudy:*", "~understudy:*", *rules)
        url = f"redis://app:secret@127.0.0.1:{server.port}"
        async with _opened(url) as store:
            address = await _new(store)
            await store.claim(address, owner="n")
            await store.save(address, epoch=2, version=2, snapshot=b"two", ttl=60)
            await store.touch(address, epoch=2, ttl=30)
            assert len((await store.list()).records) == 1
            assert await store.expire() == 0
            await store.ping()
            assert await store.delete(address, epoch=2)
            await store.events.append(address, "stream", 1, [b"one"] * 5000, head=b"", writer="w")
            await store.events.append(address, "other", 1, [b"one"], head=b"", writer="w")
            assert await store.events.read(address, "stream")
            await store.events._room._make_room(1)
            await store.events._room._oldest()
            await store.events.drop([(address, "stream")])
            await store.events.drop_all(address)
            await store.events.expire()
        server.command("ACL", "SETUSER", "app", "-pexpire")
        with pytest.raises(RedisRefused, match="does not let this user"):
            await open_store(url)
        server.command("ACL", "SETUSER", "app", "+pexpire", "resetkeys", "~other*")
        with pytest.raises(RedisRefused, match="does not let this user"):
            await open_store(url)


async def test_tls_is_spoken_with_who_is_trusted_and_a_mismatch_is_said(redis_servers: Servers, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "tls")
    with redis_servers(certificate=certificate) as server:
        ca = f"ca={certificate[0]}"
        async with _opened(f"{server.url}?{ca}") as store:
            address = await _new(store, b"x" * 300_000)
            assert (await store.claim(address, owner="n")).snapshot == b"x" * 300_000
        for url, says in (
            (server.url, "not trusted"),
            (f"redis://127.0.0.1:{server.port}", "closed the connection; if it wants TLS"),
            (f"{server.url}?ca={tmp_path}/missing.pem", "no certificate that can be read"),
        ):
            with pytest.raises((RedisUnavailable, ValueError), match=says):
                await RedisStore.open(RedisSettings.from_url(url), timeout=1.0)
        with redis_servers() as plain, pytest.raises(RedisUnavailable, match="does not speak TLS"):
            await RedisStore.open(RedisSettings.from_url(f"rediss://127.0.0.1:{plain.port}?{ca}"), timeout=0.5)


async def test_of_all_authorities_the_one_that_is_named_is_trusted_alone(
    redis_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_the_system, named = self_signed(tmp_path / "system"), self_signed(tmp_path / "named")
    monkeypatch.setenv("SSL_CERT_FILE", str(of_the_system[0]))
    with redis_servers(certificate=of_the_system) as server:
        async with _opened(server.url) as store:
            await _new(store)
        with pytest.raises(RedisRefused, match="not trusted"):
            await open_store(f"{server.url}?ca={named[0]}")


async def test_a_file_that_is_gone_when_the_connection_is_made_anew_is_an_outage(
    redis_servers: Servers, tmp_path: Path
) -> None:
    cert, key = self_signed(tmp_path / "tls")
    with redis_servers(certificate=(cert, key)) as server:
        async with _opened(f"{server.url}?ca={cert}") as store:
            address = await _new(store)
            away = cert.rename(tmp_path / "away.pem")
            assert isinstance(store._route, OneServer)
            store._route.server.leave()
            with pytest.raises(RedisRefused, match="no certificate that can be read"):
                await store.load(address)
            away.rename(cert)
            await asyncio.sleep(0.15)
            assert await store.load(address) is not None


async def test_a_server_that_asks_for_a_certificate_gets_ours(redis_servers: Servers, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path / "tls")
    with redis_servers(certificate=(cert, key), options={"tls-auth-clients": "yes"}) as server:
        async with _opened(f"{server.url}?ca={cert}&cert={cert}&key={key}") as store:
            await _new(store)
        # Refused in its own words, or, if they are lost on the way, not there.
        with pytest.raises(RedisUnavailable, match=r"asks for a client certificate.* give one with its key"):
            await open_store(f"{server.url}?ca={cert}")


async def test_nobody_there_is_said_after_the_deadline() -> None:
    port = free_port()
    with pytest.raises(RedisUnavailable, match=f"no Redis at 127.0.0.1:{port}"):
        await RedisStore.open(RedisSettings((("127.0.0.1", port),)), timeout=0.3)
    with pytest.raises(RedisUnavailable, match=r"host of Redis at nowhere\.invalid"):
        await RedisStore.open(RedisSettings((("nowhere.invalid", port),)), timeout=0.3)


async def test_a_server_that_starts_late_is_waited_for(redis_servers: Servers) -> None:
    server = redis_servers()
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(RedisStore.from_url(server.url))
        await asyncio.sleep(0.3)
        server.start()
    await opening.result().ping()
    await opening.result().aclose()


async def test_what_is_no_redis_is_said() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with serving(talk) as port:
        with pytest.raises(RedisUnavailable, match="is no Redis"):
            await RedisStore.open(RedisSettings((("127.0.0.1", port),)), timeout=0.3)


async def test_a_replica_is_refused_and_so_is_a_node_of_a_cluster_or_a_lone_server_by_the_wrong_scheme(
    redis_server: RedisServer, redis_servers: Servers
) -> None:
    with redis_servers(replica_of=redis_server.port) as replica, pytest.raises(RedisRefused, match="read-only replica"):
        await open_store(replica.url)
    with pytest.raises(RedisRefused, match="is no node of a cluster"):
        await open_store(f"redis+cluster://127.0.0.1:{redis_server.port}")
    with pytest.raises(RedisRefused, match="is no sentinel"):
        await open_store(f"redis+sentinel://127.0.0.1:{redis_server.port}/sessions")


async def test_a_primary_that_becomes_a_replica_takes_no_more_writes(redis_servers: Servers) -> None:
    with redis_servers() as server, redis_servers() as other:
        async with _opened(server.url) as store:
            address = await _new(store)
            server.command("REPLICAOF", "127.0.0.1", other.port)
            with pytest.raises(StoreUnavailable, match="replica") as caught:
                await _save(store, address)
            assert not caught.value.outcome_unknown


async def test_a_replica_that_lacks_a_session_is_not_believed_that_there_is_none(redis_servers: Servers) -> None:
    """Whoever asks what was the primary a moment ago would have all sessions for ended."""
    asking = (
        lambda store, address: store.load(address),
        lambda store, address: store.claim(address, owner="node-2"),
        lambda store, address: _save(store, address),
        lambda store, address: store.touch(address, epoch=1, ttl=60.0),
        lambda store, address: store.delete(address),
    )
    with redis_servers() as server, redis_servers() as other:
        other.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        async with AsyncExitStack() as stack:
            # One each: a connection that was refused so is not used again.
            stores = [await stack.enter_async_context(_opened(server.url)) for _ in asking]
            address = await _new(stores[0])
            server.command("REPLICAOF", "127.0.0.1", other.port)
            async with asyncio.timeout(PATIENCE):
                while server.command("DBSIZE") != 0:
                    await asyncio.sleep(0.02)
            for store, ask in zip(stores, asking, strict=True):
                with pytest.raises(StoreUnavailable, match="takes no writes") as caught:
                    await ask(store, address)
                assert not caught.value.outcome_unknown


async def test_a_newer_format_and_foreign_keys_are_left_alone(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    url = f"{redis_server.url}?prefix={prefix}"
    async with _opened(url) as store:
        await _new(store)
    redis_server.command("HSET", f"{prefix}:schema", "format", "2")
    with pytest.raises(StoreVersionError, match="format 2; this understudy reads 1"):
        await open_store(url)
    assert redis_server.command("HGET", f"{prefix}:schema", "format") == b"2"
    for foreign in (("SET", "x"), ("HSET", "x", "y")):
        redis_server.command("DEL", f"{prefix}:schema")
        redis_server.command(foreign[0], f"{prefix}:schema", *foreign[1:])
        with pytest.raises(StoreCorrupt, match=r"not understudy's|something else"):
            await open_store(url)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"appendonly": "no"}, "appendonly is off"),
        ({"appendfsync": "everysec"}, "appendfsync is everysec: .* the last second"),
        ({"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru"),
        ({}, ""),
    ],
)
async def test_what_may_be_lost_is_said_at_the_start(
    redis_servers: Servers, options: dict[str, str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_servers(durable=True, options=options) as server:
        async with _opened(server.url) as store:
            assert len(store.warnings) == (1 if says else 0)
            assert len(caplog.records) == len(store.warnings)
            if says:
                assert re.search(says, caplog.records[0].message)


# Fail-over


async def test_a_write_that_too_few_replicas_have_is_not_acknowledged(redis_servers: Servers) -> None:
    with redis_servers() as server, redis_servers(replica_of=server.port) as replica:
        await asyncio.to_thread(_linked, server, 1)
        async with _opened(f"{server.url}?replicas=1", timeout=1.0) as store:
            addresses = [await _new(store) for _ in range(50)]
            await asyncio.gather(*(_save(store, address) for address in addresses))
            replica.pause()
            with pytest.raises(StoreUnavailable, match="of the 1 replicas") as caught:
                await _save(store, addresses[0], 3)
            assert caught.value.outcome_unknown
            replica.resume()
            await _save(store, addresses[0], 3)
            with pytest.raises(StaleEpoch):
                await _save(store, addresses[0], 9)
            await _save(store, addresses[0], 4)


async def test_a_repeat_is_acknowledged_only_when_the_replicas_have_it(redis_servers: Servers) -> None:
    with redis_servers() as server, redis_servers(replica_of=server.port) as replica:
        await asyncio.to_thread(_linked, server, 1)
        async with _opened(f"{server.url}?replicas=1", timeout=1.0) as store:
            address = await _new(store)
            replica.pause()
            for _ in range(2):
                # A new connection has written nothing, and its WAIT would be answered at once.
                with pytest.raises(StoreUnavailable) as caught:
                    await _save(store, address)
                assert caught.value.outcome_unknown
                assert isinstance(store._route, OneServer)
                store._route.server.leave()
            replica.resume()
            await _save(store, address)


async def test_of_two_that_were_given_one_epoch_in_two_histories_one_writes(redis_servers: Servers) -> None:
    with redis_servers() as server, redis_servers(replica_of=server.port) as lagging:
        await asyncio.to_thread(_linked, server, 1)
        async with _opened(server.url) as first:
            address = await _new(first)
            await asyncio.to_thread(wait_until, lambda: lagging.command("KEYS", f"*:r:{address}"))
            lagging.command("REPLICAOF", "NO", "ONE")
            await first.claim(address, owner="node-1")  # epoch 2, in a history that is about to end
            server.kill()
            async with _opened(lagging.url) as second:
                assert (await second.claim(address, owner="node-2")).epoch == 2
                await first._route.aclose()
                first._route = second._route
                with pytest.raises(StaleEpoch):
                    await first.save(address, epoch=2, version=2, snapshot=b"first", ttl=60)
                with pytest.raises(StaleEpoch):
                    await first.save(address, epoch=2, version=2, snapshot=b"first", ttl=60)
                await second.save(address, epoch=2, version=2, snapshot=b"second", ttl=60)
                record = await second.load(address)
                assert record is not None
                assert record.snapshot == b"second"


def _linked(server: RedisServer, replicas: int) -> None:
    """Return when `replicas` of them have acknowledged a write."""

    def linked(at_least: int) -> bool:
        lines = (server.info("replication").get(f"slave{number}", "") for number in range(replicas))
        found = [dict(field.split("=") for field in line.split(",")) for line in lines if line]
        online = [one for one in found if one["state"] == "online" and int(one["offset"]) >= at_least]
        return len(online) == replicas

    wait_until(lambda: linked(0))
    server.command("SET", "linked", "1")
    written = int(server.info("replication")["master_repl_offset"])
    wait_until(lambda: linked(max(written, 1)))


async def test_sentinels_lead_to_the_new_primary(redis_servers: Servers) -> None:
    with redis_servers() as primary, redis_servers(replica_of=primary.port) as replica:
        await asyncio.to_thread(_linked, primary, 1)
        with redis_servers(sentinel_of=primary.port) as sentinel:
            url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/sessions"
            await asyncio.to_thread(wait_until, lambda: _replicas_known(sentinel) == 1)
            with pytest.raises(RedisRefused, match="does not know the service"):
                await RedisStore.open(
                    replace(RedisSettings.from_url(url), servers=(("127.0.0.1", sentinel.port),), service="other"),
                    timeout=1.0,
                )
            async with _opened(url, timeout=2.0) as store:
                address = await _new(store)
                await _save(store, address)
                primary.kill()
                async with asyncio.timeout(PATIENCE):
                    while True:
                        try:
                            record = await store.claim(address, owner="node-2")
                            break
                        except StoreUnavailable:
                            await asyncio.sleep(0.05)
                assert record.snapshot == b"two"
                assert replica.info("replication")["role"] == "master"


def _replicas_known(sentinel: RedisServer) -> int:
    fields = sentinel.command("SENTINEL", "MASTER", "sessions")
    return int(fields[fields.index(b"num-slaves") + 1])
