"""`PostgresStore` while PostgreSQL, or the way to it, is not well: what a caller learns, and what is there then."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from support.fault_proxy import FaultProxy
from support.patience import PATIENCE
from support.postgres import (
    PgBouncer,
    PostgresServer,
    fresh_database_name,
    pgbouncer_missing,
    postgres_missing,
)
from understudy.stores import Address, EventLogBounds, StaleEpoch, StoreUnavailable
from understudy.stores.postgresql.errors import PostgresFull, PostgresReadOnly, PostgresRefused, PostgresUnavailable
from understudy.stores.postgresql.settings import PostgresSettings
from understudy.stores.postgresql.store import PostgresStore

Call = Callable[[PostgresStore, Address], Awaitable[object]]

WRITES: dict[str, Call] = {
    "create": lambda store, address: store.create(
        Address(address.kind, f"{address.id}+"), tenant="", owner="", snapshot=b"", ttl=60.0
    ),
    "claim": lambda store, address: store.claim(address, owner="node-2"),
    "save": lambda store, address: store.save(address, epoch=1, version=2, snapshot=b"two", ttl=1000.0),
    "touch": lambda store, address: store.touch(address, epoch=1, ttl=9000.0),
    "delete": lambda store, address: store.delete(address),
    "append": lambda store, address: store.events.append(address, "s", 1, [b"one"], head=b"", writer="w"),
}
READS: dict[str, Call] = {
    "load": lambda store, address: store.load(address),
    "list": lambda store, address: store.list(),
    "read": lambda store, address: store.events.read(address, "s"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that these tests may crash; each leaves it running."""
    reason = postgres_missing()
    if reason is not None:
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture
def schema() -> str:
    return fresh_database_name()


@asynccontextmanager
async def opened(url: str, schema: str, *, options: str = "", **more: object) -> AsyncGenerator[PostgresStore]:
    settings = PostgresSettings.from_url(f"{url}?schema={schema}{options}")
    store = await PostgresStore.open(settings, **more)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()


def through(proxy: FaultProxy, server: PostgresServer) -> str:
    return server.url().replace(f":{server.port}/", f":{proxy.port}/")


async def new(store: PostgresStore) -> Address:
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="node-1", snapshot=b"one", ttl=1000.0)
    return address


async def well_again(store: PostgresStore) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await store.ping()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_whose_connection_is_cut_is_in_doubt_and_a_look_settles_it(
    server: PostgresServer, schema: str, name: str
) -> None:
    async with (
        opened(server.url(), schema) as other,
        FaultProxy(server.port) as proxy,
        opened(through(proxy, server), schema, options="&connections=1") as store,
    ):
        for done in (False, True):
            # Once before, so that the connection knows the statement, and what is cut off is its execution.
            await WRITES[name](store, await new(store))
            address = await new(store)
            before = await _state(other, address)
            proxy.cut_after(1, "down" if done else "up")
            error = await _outcome(WRITES[name](store, address))
            assert isinstance(error, StoreUnavailable), error
            assert error.outcome_unknown
            assert ((await _state(other, address)) != before) is done
            await well_again(store)
            assert (await _state(store, address) != before) is done
            if name in ("save", "touch", "append"):
                await WRITES[name](store, address)


@pytest.mark.parametrize("name", READS)
async def test_a_read_whose_connection_is_cut_is_not_in_doubt(server: PostgresServer, schema: str, name: str) -> None:
    async with FaultProxy(server.port) as proxy, opened(through(proxy, server), schema) as store:
        address = await new(store)
        await READS[name](store, address)
        proxy.cut_after(1, "down")
        error = await _outcome(READS[name](store, address))
        assert isinstance(error, StoreUnavailable)
        assert not error.outcome_unknown
        await well_again(store)
        await READS[name](store, address)


async def test_what_was_acknowledged_is_there_after_a_crash_and_the_same_store_goes_on(
    server: PostgresServer, schema: str
) -> None:
    async with opened(server.url(), schema) as store:
        addresses = await asyncio.gather(*(new(store) for _ in range(20)))
        acknowledged = dict.fromkeys(addresses, 1)
        attempted = dict.fromkeys(addresses, 1)
        stop = asyncio.Event()
        outcomes: list[StoreUnavailable] = []

        async def go_on(address: Address) -> None:
            while not stop.is_set():
                version = acknowledged[address] + 1
                attempted[address] = version
                try:
                    await store.save(address, epoch=1, version=version, snapshot=b"%d" % version, ttl=1000.0)
                    acknowledged[address] = version
                except StoreUnavailable as error:
                    outcomes.append(error)
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as tasks:
            for address in addresses:
                tasks.create_task(go_on(address))
            for _ in range(2):
                await asyncio.sleep(0.2)
                await asyncio.to_thread(server.crash)
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await asyncio.gather(*(store.load(address) for address in addresses))
                assert time.monotonic() - began < 2
                server.start()
                await well_again(store)
            await asyncio.sleep(0.2)
            stop.set()
        assert any(error.outcome_unknown for error in outcomes)
        for address in addresses:
            record = await store.load(address)
            assert record is not None
            assert acknowledged[address] <= record.version <= attempted[address]
            assert record.snapshot == (b"%d" % record.version if record.version > 1 else b"one")
        assert store.stats()["reconnects"] >= 2


async def test_while_it_is_away_calls_fail_at_once_and_are_not_in_doubt(server: PostgresServer, schema: str) -> None:
    async with opened(server.url(), schema) as store:
        address = await new(store)
        server.stop()
        try:
            await _outcome(store.load(address))
            for call in (*WRITES.values(), *READS.values()):
                began = time.monotonic()
                error = await _outcome(call(store, address))
                assert isinstance(error, PostgresUnavailable)
                assert not error.outcome_unknown
                assert time.monotonic() - began < 1
        finally:
            server.start()
        await well_again(store)


async def test_a_session_that_the_server_ends_is_made_anew(server: PostgresServer, schema: str) -> None:
    async with opened(server.url(), schema) as store:
        address = await new(store)
        admin = await asyncpg.connect(server.url())
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'understudy store'"
        await admin.execute(ends)
        # It said so while nothing was under way: nothing is in doubt, and nobody notices.
        async with asyncio.timeout(PATIENCE):
            while store.stats()["connections"]:
                await asyncio.sleep(0.01)
        assert (await store.claim(address, owner="node-2")).epoch == 2

        await admin.execute("BEGIN")
        await admin.execute(f"SELECT FROM {schema}.records FOR UPDATE")
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(_outcome(store.save(address, epoch=2, version=2, snapshot=b"two", ttl=1000.0)))
            while not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                await asyncio.sleep(0.01)
            await admin.execute(ends)
        error = call.result()
        assert isinstance(error, PostgresUnavailable)
        assert error.outcome_unknown
        assert "administrator command" in str(error)
        await admin.execute("ROLLBACK")
        await store.save(address, epoch=2, version=2, snapshot=b"two", ttl=1000.0)
        await admin.close()


async def test_a_statement_that_waits_too_long_is_taken_back(server: PostgresServer, schema: str) -> None:
    async with opened(server.url(), schema, timeout=0.3) as store:
        address = await new(store)
        admin = await asyncpg.connect(server.url())
        await admin.execute("BEGIN")
        await admin.execute(f"SELECT FROM {schema}.records FOR UPDATE")
        began = time.monotonic()
        error = await _outcome(store.save(address, epoch=1, version=2, snapshot=b"late", ttl=1000.0))
        assert isinstance(error, PostgresUnavailable)
        assert "within 0.3 s" in str(error)
        assert error.outcome_unknown
        assert time.monotonic() - began < 2
        async with asyncio.timeout(PATIENCE):
            while await admin.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                await asyncio.sleep(0.01)
        await admin.execute("ROLLBACK")
        await admin.close()
        record = await store.load(address)
        assert record is not None
        assert record.snapshot == b"one"


async def test_a_server_that_hangs_costs_a_bounded_time_and_comes_back(server: PostgresServer, schema: str) -> None:
    async with opened(server.url(), schema, timeout=0.4) as store:
        addresses = await asyncio.gather(*(new(store) for _ in range(30)))
        server.freeze()
        try:
            began = time.monotonic()
            outcomes = await asyncio.gather(
                *(_outcome(store.save(a, epoch=1, version=2, snapshot=b"two", ttl=60.0)) for a in addresses),
                *(_outcome(store.load(a)) for a in addresses),
            )
            assert time.monotonic() - began < 4
            assert all(isinstance(outcome, PostgresUnavailable) for outcome in outcomes)
        finally:
            server.thaw()
        await well_again(store)
        for address in addresses:
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)


async def test_a_call_that_no_connection_is_free_for_fails_and_is_not_in_doubt(
    server: PostgresServer, schema: str
) -> None:
    async with opened(server.url(), schema, options="&connections=1", timeout=0.3) as store:
        address, other = await new(store), await new(store)
        admin = await asyncpg.connect(server.url())
        await admin.execute("BEGIN")
        await admin.execute(f"SELECT FROM {schema}.records WHERE id = $1 FOR UPDATE", address.id)
        outcomes = await asyncio.gather(
            _outcome(store.touch(address, epoch=1, ttl=60.0)),
            _outcome(store.claim(address, owner="node-2")),
            _outcome(store.claim(other, owner="node-2")),
        )
        assert [type(outcome) for outcome in outcomes] == [PostgresUnavailable] * 3
        assert [outcome.outcome_unknown for outcome in outcomes] == [True, False, False]  # type: ignore[attr-defined]
        assert "no connection to PostgreSQL was free" in str(outcomes[2])
        await admin.execute("ROLLBACK")
        await admin.close()
        assert (await store.claim(other, owner="node-2")).epoch == 2


async def test_closing_takes_bounded_time_whatever_the_server_does(server: PostgresServer, schema: str) -> None:
    async with opened(server.url(), schema) as store:
        address = await new(store)
        store._close_timeout = 0.3
        server.freeze()
        try:
            async with asyncio.TaskGroup() as tasks:
                call = tasks.create_task(_outcome(store.claim(address, owner="node-2")))
                await asyncio.sleep(0.05)
                began = time.monotonic()
                await store.aclose()
                assert time.monotonic() - began < 3
            error = call.result()
            assert isinstance(error, PostgresUnavailable)
            assert error.outcome_unknown
        finally:
            server.thaw()


async def test_a_server_that_becomes_read_only_refuses_writes_and_heals(server: PostgresServer, schema: str) -> None:
    async with opened(server.url(), schema) as store:
        address = await new(store)
        admin = await asyncpg.connect(server.url())
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        try:
            async with asyncio.timeout(PATIENCE):
                error = None
                while error is None:
                    error = await _outcome(store.touch(address, epoch=1, ttl=1000.0))
            assert isinstance(error, PostgresReadOnly)
            assert not error.outcome_unknown
            with pytest.raises(PostgresReadOnly):
                await store.ping()
        finally:
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await admin.execute("SELECT pg_reload_conf()")
            await admin.close()
        await well_again(store)
        assert (await store.claim(address, owner="node-2")).epoch == 2


async def test_tables_that_were_removed_are_named_and_nobody_dies(server: PostgresServer, schema: str) -> None:
    async with opened(server.url(), schema) as store:
        address = await new(store)
        admin = await asyncpg.connect(server.url())
        await admin.execute(f"DROP SCHEMA {schema} CASCADE")
        for call in (store.load(address), store.claim(address, owner="x"), store.ping()):
            error = await _outcome(call)
            assert isinstance(error, PostgresRefused)
            assert "tables were removed" in str(error)
            assert not error.outcome_unknown
        await admin.close()


async def test_rights_that_were_taken_away_are_named(server: PostgresServer, schema: str) -> None:
    role = fresh_database_name("role")
    admin = await asyncpg.connect(server.url())
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE SCHEMA {schema} AUTHORIZATION {role}")
    async with opened(server.url(user=role, password="x"), schema) as store:
        address = await new(store)
        await admin.execute(f"REVOKE UPDATE ON {schema}.records FROM {role}")
        error = await _outcome(store.claim(address, owner="x"))
        assert isinstance(error, PostgresRefused)
        assert "SELECT, INSERT, UPDATE and DELETE" in str(error)
        assert await store.load(address) is not None
        # A password that changes is noticed at the next connection.
        await admin.execute(f"ALTER ROLE {role} PASSWORD 'y'")
        await admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
        async with asyncio.timeout(PATIENCE):
            while store.stats()["connections"]:
                await asyncio.sleep(0.01)
        error = await _outcome(store.load(address))
        assert isinstance(error, PostgresRefused)
        assert "password authentication failed" in str(error)
    await admin.close()


async def test_a_database_that_isolates_strictly_is_served_all_the_same(server: PostgresServer, schema: str) -> None:
    role = fresh_database_name("role")
    admin = await asyncpg.connect(server.url())
    await admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'x'")
    await admin.execute(f"ALTER ROLE {role} SET default_transaction_isolation = 'serializable'")
    await admin.close()
    url = server.url(user=role, password="x")
    async with opened(url, schema) as first, opened(url, schema) as second:
        addresses = [await new(first) for _ in range(20)]

        async def contend(store: PostgresStore, address: Address) -> None:
            for _ in range(5):
                record = await store.claim(address, owner="x")
                with suppress(StaleEpoch):
                    await store.save(address, epoch=record.epoch, version=record.version + 1, snapshot=b"x", ttl=1000.0)

        outcomes = await asyncio.gather(
            *(_outcome(contend(store, address)) for store in (first, second) for address in addresses)
        )
        assert [outcome for outcome in outcomes if not isinstance(outcome, PostgresUnavailable | None)] == []
        assert all(not outcome.outcome_unknown for outcome in outcomes if outcome is not None)  # type: ignore[attr-defined]
        assert outcomes.count(None) > 30
        epochs = [(await first.claim(address, owner="x")).epoch for address in addresses]
        assert max(epochs) == 12


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A directory of 8 MiB."""
    directory = Path(tempfile.mkdtemp(prefix="understudy-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", directory], capture_output=True, check=False
    )
    try:
        if mounted.returncode != 0:
            pytest.skip("needs the right to mount a small file system")
        yield directory
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", directory], check=True)
        directory.rmdir()


async def test_a_full_disk_refuses_what_needs_room_writes_none_of_it_and_heals(
    server: PostgresServer, schema: str, small_disk: Path
) -> None:
    name, place = fresh_database_name("disk"), small_disk / "tables"
    place.mkdir()
    server._hand_over(place)
    admin = await asyncpg.connect(server.url())
    await admin.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
    await admin.execute(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD 'x'")
    await admin.execute(f"ALTER ROLE {name} SET default_tablespace = {name}")
    async with opened(server.url(user=name, password="x"), schema) as store:
        big = os.urandom(2**20)
        made: list[Address] = []
        error: object = None
        for number in range(30):
            address = Address("session", f"{number}")
            error = await _outcome(store.create(address, tenant="", owner="", snapshot=big, ttl=1000.0))
            if error is not None:
                break
            made.append(address)
        assert isinstance(error, PostgresFull), error
        assert not error.outcome_unknown
        assert "No space left" in str(error)
        assert "53100" in str(error)
        assert len(made) >= 3
        assert await store.load(address) is None
        # What needs no room goes on.
        assert (await store.claim(made[0], owner="node-2")).snapshot == big
        error = await _outcome(store.save(made[0], epoch=2, version=2, snapshot=big[::-1], ttl=1000.0))
        assert isinstance(error, PostgresFull)
        record = await store.load(made[0])
        assert record is not None
        assert (record.version, record.snapshot) == (1, big)
        assert await store.delete(made[1])
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=64m", small_disk], check=True)
        await store.save(made[0], epoch=2, version=2, snapshot=big[::-1], ttl=1000.0)
    await admin.execute(f"DROP SCHEMA {schema} CASCADE")
    await admin.execute(f"DROP TABLESPACE {name}")
    await admin.close()


async def test_behind_a_pooler_a_crash_of_the_server_is_over_when_it_is_over(
    server: PostgresServer, schema: str
) -> None:
    reason = pgbouncer_missing()
    if reason is not None:
        pytest.skip(reason)
    with PgBouncer(server) as pooler:
        async with opened(pooler.url(), schema, timeout=1.0) as store:
            address = await new(store)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=1000.0)
            server.crash()
            error = await _outcome(store.claim(address, owner="node-2"))
            assert isinstance(error, PostgresUnavailable)
            server.start()
            await well_again(store)
            record = await store.claim(address, owner="node-2")
            assert (record.epoch, record.snapshot) == (2, b"two")


async def test_an_append_whose_answer_is_lost_is_settled_by_repeating_it_with_what_came_since(
    server: PostgresServer, schema: str
) -> None:
    bounds = EventLogBounds(max_events=100)
    async with FaultProxy(server.port) as proxy, opened(through(proxy, server), schema, event_bounds=bounds) as store:
        address = Address.new("session")
        log = store.events
        await log.append(address, "s", 1, [b"1", b"2"], head=b"h", writer="w")
        proxy.cut_after(1, "down")
        error = await _outcome(log.append(address, "s", 3, [b"3"], head=b"", writer="w"))
        assert isinstance(error, PostgresUnavailable)
        assert error.outcome_unknown
        await well_again(store)
        await log.append(address, "s", 3, [b"3", b"4"], head=b"", writer="w", ends=True)
        logged = await log.read(address, "s")
        assert logged is not None
        assert (logged.events, logged.ended, logged.head) == ((b"1", b"2", b"3", b"4"), True, b"h")


async def _state(store: PostgresStore, address: Address) -> object:
    other = Address(address.kind, f"{address.id}+")
    return await store.load(address), await store.load(other) is None, await store.events.read(address, "s")


async def _outcome(call: Awaitable[object]) -> object:
    try:
        await call
    except Exception as error:
        return error
    return None
