"""`PostgresStore`: what is its own. The contract is in `test_postgres_contract.py`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import asyncpg
import pytest
from hypothesis import settings
from support.patience import PATIENCE
from support.postgres import PgBouncer, PostgresServer, fresh_database_name
from understudy.runtime.telemetry.metric_names import GAUGES, TOTALS
from understudy.stores import (
    Address,
    EventLogBounds,
    RecordExists,
    SessionStore,
    StaleEpoch,
    StoreUnavailable,
    open_store,
)
from understudy.stores.postgresql.settings import PostgresSettings
from understudy.stores.postgresql.store import PostgresStore
from understudy.stores.testing import ManualTime, store_machine


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncGenerator[PostgresStore]:
    store = await PostgresStore.open(PostgresSettings.from_url(url), **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()


def fresh(server: PostgresServer | PgBouncer, options: str = "") -> str:
    return f"{server.url()}?schema={fresh_database_name()}{options}"


async def new(store: SessionStore, *, snapshot: bytes = b"one") -> Address:
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="node-1", snapshot=snapshot, ttl=1000.0)
    return address


_machine_server: PostgresServer | None = None


async def _open_anywhere(clock: ManualTime) -> SessionStore:
    assert _machine_server is not None
    return await PostgresStore.from_url(fresh(_machine_server), clock=clock)


TestPostgresStoreAgainstTheModel = store_machine(_open_anywhere, settings=settings(max_examples=5, deadline=None))


@pytest.fixture(scope="module", autouse=True)
def _the_machine_knows_the_server(postgres_server: PostgresServer) -> object:
    global _machine_server
    _machine_server = postgres_server
    yield
    _machine_server = None


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
async def test_a_url_opens_the_store(postgres_server: PostgresServer, scheme: str) -> None:
    store = await open_store(f"{scheme}{fresh(postgres_server).removeprefix('postgresql')}")
    assert store.shared
    address = await new(store)
    assert (await store.claim(address, owner="node-2")).epoch == 2
    await store.aclose()


async def test_fifty_calls_at_once_share_a_statement(postgres_server: PostgresServer) -> None:
    async with opened(fresh(postgres_server)) as store:
        addresses = await asyncio.gather(*(new(store) for _ in range(50)))
        for calls in (
            [store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0) for address in addresses],
            [store.claim(address, owner="node-2") for address in addresses],
            [store.touch(address, epoch=2, ttl=90.0) for address in addresses],
        ):
            before = store.stats()["write_commits"]
            await asyncio.gather(*calls)
            assert store.stats()["write_commits"] - before == 1
        before = store.stats()["read_commits"]
        await asyncio.gather(*(store.load(address) for address in addresses))
        assert store.stats()["read_commits"] - before == 1
        assert store.stats()["write_largest_group"] == 50


async def test_large_snapshots_do_not_share_a_statement_beyond_a_mebibyte(postgres_server: PostgresServer) -> None:
    async with opened(fresh(postgres_server)) as store:
        big = os.urandom(400_000)
        addresses = await asyncio.gather(*(new(store, snapshot=big) for _ in range(8)))
        assert store.stats()["write_largest_group"] == 2
        records = await asyncio.gather(*(store.load(address) for address in addresses))
        assert {record.snapshot for record in records if record} == {big}


async def test_a_row_that_another_holds_delays_nobody_else(postgres_server: PostgresServer) -> None:
    url = fresh(postgres_server)
    async with opened(url) as store:
        addresses = [await new(store) for _ in range(20)]
        held = addresses[7]
        schema = PostgresSettings.from_url(url).schema
        other = await asyncpg.connect(postgres_server.url())
        transaction = other.transaction()
        await transaction.start()
        await other.execute(f"SELECT FROM {schema}.records WHERE id = $1 FOR UPDATE", held.id)
        async with asyncio.TaskGroup() as tasks:
            saves = {
                address: tasks.create_task(store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0))
                for address in addresses
            }
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(save for address, save in saves.items() if address != held))
            assert not saves[held].done()
            claims = await asyncio.gather(*(store.claim(a, owner="node-2") for a in addresses if a != held))
            assert [claim.epoch for claim in claims] == [2] * 19
            await transaction.rollback()
        await other.close()
        record = await store.load(held)
        assert record is not None
        assert record.snapshot == b"two"


async def test_a_save_that_waited_for_a_claim_is_judged_by_what_the_claim_left(postgres_server: PostgresServer) -> None:
    url = fresh(postgres_server)
    async with opened(url) as store:
        address = await new(store)
        schema = PostgresSettings.from_url(url).schema
        other = await asyncpg.connect(postgres_server.url())
        for statement in (
            store.save(address, epoch=1, version=2, snapshot=b"stale", ttl=60.0),
            store.touch(address, epoch=2, ttl=60.0),
            store.delete(address, epoch=3),
        ):
            transaction = other.transaction()
            await transaction.start()
            await other.execute(f"UPDATE {schema}.records SET epoch = epoch + 1 WHERE id = $1", address.id)
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(_outcome(statement))
                while not await other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                    await asyncio.sleep(0.01)
                await transaction.commit()
            assert isinstance(waiting.result(), StaleEpoch)
        record = await store.load(address)
        assert record is not None
        assert (record.epoch, record.snapshot) == (4, b"one")
        await other.close()


async def _outcome(call: object) -> object:
    try:
        return await call  # type: ignore[misc]
    except Exception as error:
        return error


async def test_two_nodes_that_claim_the_same_many_at_once_get_each_epoch_once_and_lose_no_save(
    postgres_server: PostgresServer,
) -> None:
    url = fresh(postgres_server)
    async with opened(url) as first, opened(url) as second:
        addresses = [await new(first, snapshot=b"0") for _ in range(30)]
        epochs: dict[Address, list[int]] = {address: [] for address in addresses}
        acknowledged = dict.fromkeys(addresses, 0)

        async def count_up(store: PostgresStore, address: Address) -> None:
            record = await store.claim(address, owner="node")
            epochs[address].append(record.epoch)
            count = b"%d" % (int(record.snapshot) + 1)
            with suppress(StaleEpoch):
                await store.save(address, epoch=record.epoch, version=record.version + 1, snapshot=count, ttl=1000.0)
                acknowledged[address] += 1

        for _ in range(6):
            await asyncio.gather(*(count_up(store, address) for store in (first, second) for address in addresses))
        assert first.stats()["write_largest_group"] > 10
        for address in addresses:
            assert sorted(epochs[address]) == list(range(2, 14))
            record = await first.load(address)
            assert record is not None
            assert (int(record.snapshot), record.version) == (acknowledged[address], acknowledged[address] + 1)


async def test_a_plan_that_the_tables_have_outlived_costs_one_call(postgres_server: PostgresServer) -> None:
    url = fresh(postgres_server)
    async with opened(url) as store:
        address = await new(store)
        await store.load(address)
        connection = await asyncpg.connect(postgres_server.url())
        schema = PostgresSettings.from_url(url).schema
        await connection.execute(f"ALTER TABLE {schema}.records ALTER COLUMN owner TYPE varchar(2000)")
        await connection.close()
        error = await _outcome(store.load(address))
        assert isinstance(error, StoreUnavailable)
        assert not error.outcome_unknown
        assert await store.load(address) is not None


async def test_one_bad_snapshot_takes_no_neighbour_along(postgres_server: PostgresServer) -> None:
    async with opened(fresh(postgres_server)) as store:
        addresses = [await new(store) for _ in range(10)]
        snapshots: list[object] = [b"two"] * 10
        snapshots[3] = "no bytes"
        outcomes = await asyncio.gather(
            *(
                store.save(address, epoch=1, version=2, snapshot=snapshot, ttl=60.0)  # type: ignore[arg-type]
                for address, snapshot in zip(addresses, snapshots, strict=True)
            ),
            return_exceptions=True,
        )
        assert [outcome is None for outcome in outcomes] == [place != 3 for place in range(10)]
        await store.ping()


async def test_of_many_records_adopted_at_once_each_refusal_stands_alone(postgres_server: PostgresServer) -> None:
    async with opened(fresh(postgres_server, "&connections=1"), clock=ManualTime()) as store:
        there, changed, equal, expired = [await new(store) for _ in range(4)]
        await store.claim(changed, owner="node-2")
        await store.touch(expired, epoch=1, ttl=0.001)
        store._clock.advance(1)  # type: ignore[attr-defined]
        template = await store.load(equal)
        assert template is not None
        absent = [Address.new("session") for _ in range(40)]
        before = store.stats()["write_commits"]

        def adopt(address: Address, over: tuple[int, int] | None = None, **changes: object):
            record = replace(template, address=address, **{"epoch": 7, "version": 9, **changes})  # type: ignore[arg-type]
            return store.adopt(record, over=over)

        outcomes = await asyncio.gather(
            *(adopt(address) for address in absent),
            adopt(there),
            adopt(changed, (2, 1)),
            adopt(equal, epoch=1, version=1),
            adopt(expired),
            adopt(absent[0]),
            return_exceptions=True,
        )
        assert outcomes[:40] == [None] * 40
        assert [type(outcome) for outcome in outcomes[40:]] == [RecordExists, *[type(None)] * 4]
        # One alone while the others queue up; together what goes where nothing is; three that need a look of their own.
        assert store.stats()["write_commits"] - before <= 8
        for address in (*absent, changed, expired):
            found = await store.load(address)
            assert found is not None
            assert (found.epoch, found.version) == (7, 9)


async def test_of_many_deletes_at_once_each_refusal_stands_alone(postgres_server: PostgresServer) -> None:
    async with opened(fresh(postgres_server, "&connections=1")) as store:
        addresses = [await new(store) for _ in range(30)]
        claimed, gone = addresses[-1], Address.new("session")
        await store.claim(claimed, owner="node-2")
        before = store.stats()["write_commits"]
        outcomes = await asyncio.gather(
            *(store.delete(address, epoch=1 if n % 2 else None) for n, address in enumerate(addresses[:-1])),
            store.delete(claimed, epoch=1),
            store.delete(gone),
            store.delete(addresses[0]),
            store.delete(addresses[1], epoch=2**62),
            return_exceptions=True,
        )
        assert outcomes[:29] == [True] * 29
        assert type(outcomes[29]) is StaleEpoch
        assert outcomes[30:32] == [False, False]
        assert outcomes[32] is False or type(outcomes[32]) is StaleEpoch
        assert store.stats()["write_commits"] - before <= 8
        assert [info.address for info in (await store.list()).records] == [claimed]


async def test_of_many_touches_at_once_each_refusal_stands_alone(postgres_server: PostgresServer) -> None:
    clock = ManualTime()
    async with opened(fresh(postgres_server), clock=clock) as store:
        addresses = [await new(store) for _ in range(20)]
        outcomes = await asyncio.gather(
            *(_outcome(store.touch(address, epoch=1 + n % 2, ttl=9000.0)) for n, address in enumerate(addresses)),
            _outcome(store.touch(Address.new("session"), epoch=1, ttl=9000.0)),
        )
        assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "StaleEpoch"] * 10 + ["RecordNotFound"]
        clock.advance(5000)
        assert [(await store.load(address)) is not None for address in addresses] == [True, False] * 10


async def test_saves_do_not_touch_an_index_and_sweeping_still_finds_what_expired(
    postgres_server: PostgresServer,
) -> None:
    url, clock = fresh(postgres_server), ManualTime()
    async with opened(url, clock=clock) as store:
        address, gone = await new(store), await new(store)
        for version in range(2, 12):
            clock.advance(900)
            await store.save(address, epoch=1, version=version, snapshot=b"%d" % version, ttl=1000.0)
        connection = await asyncpg.connect(postgres_server.url())
        schema = PostgresSettings.from_url(url).schema
        sweeps = await connection.fetch(f"SELECT id, sweep, expires FROM {schema}.records ORDER BY expires DESC")
        assert [row["id"] for row in sweeps] == [address.id, gone.id]
        assert sweeps[0]["sweep"] == 1_800_001_000.0 < sweeps[0]["expires"] == clock() + 1000
        assert await store.expire() == 1
        assert await connection.fetchval(f"SELECT sweep = expires FROM {schema}.records")
        assert await store.expire() == 0
        clock.advance(1001)
        assert await store.expire() == 1
        await connection.close()


async def test_two_nodes_that_sweep_at_once_count_each_record_once(postgres_server: PostgresServer) -> None:
    url, clock = fresh(postgres_server), ManualTime()
    async with opened(url, clock=clock) as first, opened(url, clock=clock) as second:
        await asyncio.gather(*(new(first) for _ in range(300)))
        clock.advance(2000)
        swept = await asyncio.gather(*((first, second)[n % 2].expire(limit=40) for n in range(12)))
        assert sum(swept) + await first.expire() == 300


async def test_a_direct_connection_keeps_plans_and_one_through_a_pooler_keeps_none(
    postgres_server: PostgresServer, pgbouncer: PgBouncer
) -> None:
    for server, pooled in ((postgres_server, False), (pgbouncer, True)):
        url = fresh(server)
        async with opened(url) as store:
            address = await new(store)
            await store.claim(address, owner="node-2")
            kept = next(iter(store._lanes._connections))
            assert kept.pooled is pooled
            names = [row[0] for row in await kept.fetch("SELECT name FROM pg_prepared_statements", writing=False)]
            assert any(name.startswith("understudy_") for name in names) is not pooled


async def test_many_nodes_behind_a_pooler_with_few_connections_do_not_mix_their_statements(
    pgbouncer: PgBouncer,
) -> None:
    url = fresh(pgbouncer)
    async with opened(url) as first, opened(url) as second, opened(url) as third:
        addresses = await asyncio.gather(*(new(first) for _ in range(30)))

        async def live(address: Address) -> None:
            for turn, store in enumerate((second, third, first) * 3):
                record = await store.claim(address, owner=f"node-{turn}")
                await store.save(
                    address, epoch=record.epoch, version=record.version + 1, snapshot=b"%d" % turn, ttl=1000.0
                )
                loaded = await first.load(address)
                assert loaded is not None
                assert loaded.snapshot == b"%d" % turn

        await asyncio.gather(*(live(address) for address in addresses))


async def test_two_urls_of_one_store_have_one_identity(postgres_server: PostgresServer, pgbouncer: PgBouncer) -> None:
    schema = fresh_database_name()
    async with (
        opened(f"{postgres_server.url()}?schema={schema}") as first,
        opened(f"{pgbouncer.url()}?schema={schema}") as second,
        opened(fresh(postgres_server)) as other,
    ):
        assert first.identity == second.identity != other.identity


async def test_the_names_of_its_numbers_are_known(postgres_server: PostgresServer) -> None:
    async with opened(fresh(postgres_server)) as store:
        names = {f"store_{name}" for name in store.stats()}
        assert names <= set(GAUGES) | set(TOTALS)


async def test_a_connection_that_nothing_needs_is_closed_and_made_again(postgres_server: PostgresServer) -> None:
    async with opened(fresh(postgres_server)) as store:
        store._lanes._idle_seconds = 0.05
        address = await new(store)
        async with asyncio.timeout(PATIENCE):
            while store.stats()["connections"]:
                await asyncio.sleep(0.01)
        assert (await store.claim(address, owner="node-2")).epoch == 2
        assert store.stats()["reconnects"] == 1


async def test_the_bound_of_waiting_calls_refuses_the_next_and_those_before_are_done(
    postgres_server: PostgresServer,
) -> None:
    async with opened(fresh(postgres_server), max_calls=20) as store:
        outcomes = await asyncio.gather(*(_outcome(new(store)) for _ in range(30)))
        made = [outcome for outcome in outcomes if isinstance(outcome, Address)]
        assert len(made) == 20
        refused = [outcome for outcome in outcomes if outcome not in made]
        assert all(not error.outcome_unknown for error in refused)  # type: ignore[attr-defined]
        assert all("20 calls wait" in str(error) for error in refused)


async def test_appends_of_many_streams_share_a_statement_and_refusals_stand_alone(
    postgres_server: PostgresServer,
) -> None:
    async with opened(fresh(postgres_server)) as store:
        addresses = [Address.new("session") for _ in range(40)]
        log = store.events
        await asyncio.gather(*(log.append(a, "s", 1, [b"one"], head=b"h", writer="w") for a in addresses))
        assert store.stats()["write_commits"] == 1
        outcomes = await asyncio.gather(
            *(
                _outcome(log.append(a, "s", 2 if n % 2 else 7, [b"two", b"x"], head=b"", writer="w"))
                for n, a in enumerate(addresses)
            )
        )
        assert [type(outcome).__name__ for outcome in outcomes] == ["StreamTaken", "NoneType"] * 20
        assert store.stats()["write_commits"] == 2


async def test_the_event_tables_hold_nothing_of_streams_that_went(postgres_server: PostgresServer) -> None:
    url, clock = fresh(postgres_server), ManualTime()
    bounds = EventLogBounds(max_events=5, max_bytes=2000, max_age=50, max_total_bytes=20_000)
    schema = PostgresSettings.from_url(url).schema
    connection = await asyncpg.connect(postgres_server.url())
    async with (
        opened(url, clock=clock, event_bounds=bounds) as first,
        opened(url, clock=clock, event_bounds=bounds) as second,
    ):
        addresses = [Address.new("session") for _ in range(30)]

        async def churn(seed: int) -> None:
            for step in range(40):
                address = addresses[(step * 7 + seed * 11) % 30]
                log = (first, second)[(step + seed) % 2].events
                logged = await log.read(address, "stream")
                last = 0 if logged is None else logged.last
                await _outcome(
                    log.append(
                        address, "stream", last + 1, [bytes(step * 37 % 900)] * (step % 4), head=b"h", writer=f"{seed}"
                    )
                )
                if step % 11 == seed:
                    await log.drop([(address, "stream"), (addresses[step % 30], "stream")])
                if step % 13 == seed:
                    clock.advance(9)
                    await log.expire()

        await asyncio.gather(*(churn(seed) for seed in range(6)))
        wrong = await connection.fetch(
            f"SELECT s.number FROM {schema}.streams s WHERE bytes <> (SELECT coalesce(sum(length(event)), 0)"
            f" FROM {schema}.events e WHERE e.stream = s.number)"
        )
        assert wrong == []
        orphans = f"SELECT count(*) FROM {schema}.events WHERE stream NOT IN (SELECT number FROM {schema}.streams)"
        assert await connection.fetchval(orphans) == 0
        clock.advance(1000)
        assert await first.events.expire() > 0
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.streams") == 0
        assert await connection.fetchval(f"SELECT count(*) FROM {schema}.events") == 0
    await connection.close()
