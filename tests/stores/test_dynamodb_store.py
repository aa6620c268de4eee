"""`DynamoStore`: the contract, and what is its own. Against moto; `support.dynamodb` says what that is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import settings
from support.dynamodb import DynamoServer, fresh_table_name
from understudy.runtime.telemetry.metric_names import GAUGES, TOTALS
from understudy.stores import Address, RecordExists, SessionStore, StaleEpoch, StoreCorrupt, event_log_of, open_store
from understudy.stores.dynamodb import DynamoSettings, DynamoStore
from understudy.stores.dynamodb.bodies import PART
from understudy.stores.dynamodb.errors import DynamoTooLarge
from understudy.stores.testing import ManualTime, StoreContract, store_machine


class TestDynamoStoreKeepsTheContract(StoreContract):
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, dynamodb_url: str) -> None:
        self.url = dynamodb_url

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await DynamoStore.from_url(self.url, clock=clock)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await DynamoStore.from_url(self.url, clock=clock)


_machine_server: DynamoServer | None = None


async def _open_anywhere(clock: ManualTime) -> SessionStore:
    assert _machine_server is not None
    table = fresh_table_name()
    _machine_server.create_table(table)
    return await DynamoStore.from_url(_machine_server.url(table), clock=clock)


TestDynamoStoreAgainstTheModel = store_machine(
    _open_anywhere, settings=settings(max_examples=3, stateful_step_count=20, deadline=None)
)


@pytest.fixture(scope="module", autouse=True)
def _the_machine_knows_the_server(dynamodb_server: DynamoServer) -> Iterator[None]:
    global _machine_server
    _machine_server = dynamodb_server
    yield
    _machine_server = None


@pytest.fixture
def table(dynamodb_server: DynamoServer) -> str:
    name = fresh_table_name()
    dynamodb_server.create_table(name)
    return name


@asynccontextmanager
async def _opened(server: DynamoServer, table: str, **options: Any) -> AsyncGenerator[DynamoStore]:
    store = await DynamoStore.open(DynamoSettings.from_url(server.url(table)), **options)
    try:
        yield store
    finally:
        await store.aclose()


async def _new(store: SessionStore, snapshot: bytes = b"one", ttl: float = 600.0) -> Address:
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="node-1", snapshot=snapshot, ttl=ttl)
    return address


def _items(server: DynamoServer, table: str) -> dict[str, dict[str, Any]]:
    """All items, by their keys, without those that are the store's own but for parts."""
    items: list[dict[str, Any]] = []
    after: dict[str, Any] = {}
    while True:
        page = server.call("Scan", TableName=table, **after)
        items += page["Items"]
        if "LastEvaluatedKey" not in page:
            break
        after = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    named = {item["sessionId"]["S"]: item for item in items}
    return {name: item for name, item in named.items() if name[0] != "#" or name.startswith("#part")}


async def test_each_call_is_one_request(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server, table) as store:
        address = await _new(store)
        known = dynamodb_server.counts(table)

        async def asked(call: Any) -> dict[str, int]:
            nonlocal known
            with suppress(StaleEpoch, RecordExists):
                await call
            now = dynamodb_server.counts(table)
            done = {name: count - known.get(name, 0) for name, count in now.items() if count != known.get(name, 0)}
            known = now
            return done

        save = {"epoch": 2, "version": 2, "snapshot": b"two", "ttl": 60.0}
        again = {"tenant": "acme", "owner": "node-1", "snapshot": b"", "ttl": 60.0}
        assert await asked(store.claim(address, owner="node-2")) == {"UpdateItem": 1}
        assert await asked(store.load(address)) == {"GetItem": 1}
        assert await asked(store.save(address, **save)) == {"UpdateItem": 1}
        assert await asked(store.save(address, **save)) == {"UpdateItem": 1}, "a repeat"
        assert await asked(store.save(address, **save | {"epoch": 1})) == {"UpdateItem": 1}, "a stale one"
        assert await asked(store.touch(address, epoch=2, ttl=60.0)) == {"UpdateItem": 1}
        assert await asked(store.create(address, **again)) == {"PutItem": 1}
        assert await asked(store.list()) == {"Scan": 1}
        assert await asked(store.ping()) == {"PutItem": 1}
        assert await asked(store.expire()) == {}, "DynamoDB itself does that"
        assert await asked(store.delete(address, epoch=1)) == {"DeleteItem": 1}
        assert await asked(store.delete(address, epoch=2)) == {"DeleteItem": 1}


async def test_an_item_is_laid_out_as_people_know_it(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server, table) as store:
        before = time.time()
        address = await _new(store, b"snapshot", ttl=600.0)
        item = _items(dynamodb_server, table)[str(address)]
        claim = item.pop("claim")
        created, ends, ttl = (float(item[name]["N"]) for name in ("createdAt", "expiresAt", "ttl"))
        assert before <= created <= time.time()
        assert ends == pytest.approx(created + 600)
        assert ends <= ttl < ends + 1.001
        assert item == {
            "sessionId": {"S": str(address)},
            "kind": {"S": "session"},
            "tenant": {"S": "acme"},
            "owner": {"S": "node-1"},
            "epoch": {"N": "1"},
            "version": {"N": "1"},
            "createdAt": item["createdAt"],
            "updatedAt": item["createdAt"],
            "expiresAt": item["expiresAt"],
            "ttl": item["ttl"],
            "data": {"B": "c25hcHNob3Q="},
        }
        await store.claim(address, owner="node-2")
        assert _items(dynamodb_server, table)[str(address)]["claim"] != claim


# Large snapshots


async def test_a_large_snapshot_goes_through_all_that_a_small_one_does(
    dynamodb_server: DynamoServer, table: str
) -> None:
    large, larger = b"a" * (PART + 1), b"b" * (3 * PART)
    async with _opened(dynamodb_server, table) as store, _opened(dynamodb_server, table) as other:
        address = await _new(store, large)
        assert len(_items(dynamodb_server, table)) == 3
        await store.save(address, epoch=1, version=2, snapshot=larger, ttl=600.0)
        assert len(_items(dynamodb_server, table)) == 4
        assert (await other.claim(address, owner="node-2")).snapshot == larger
        with pytest.raises(StaleEpoch):
            await store.save(address, epoch=1, version=3, snapshot=large, ttl=600.0)
        assert len(_items(dynamodb_server, table)) == 4
        await other.save(address, epoch=2, version=3, snapshot=b"small", ttl=600.0)
        await other.save(address, epoch=2, version=3, snapshot=large, ttl=600.0)  # a repeat changes nothing
        assert len(_items(dynamodb_server, table)) == 1
        await other.save(address, epoch=2, version=4, snapshot=large, ttl=600.0)
        assert [info.version for info in (await store.list()).records] == [4]
        assert await store.delete(address)
        assert _items(dynamodb_server, table) == {}


async def test_a_record_has_its_snapshot_in_one_place_whatever_moved_where(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server, table) as store:
        address = await _new(store)
        sizes = (1, 2, PART + 1, PART + 2, 3)
        for version, size in enumerate(sizes, start=2):
            await store.save(address, epoch=1, version=version, snapshot=bytes(size), ttl=600.0)
            item = _items(dynamodb_server, table)[str(address)]
            assert item.keys() & {"data", "parts"} == {"data" if size <= PART else "parts"}, size
            record = await store.load(address)
            assert record is not None
            assert record.snapshot == bytes(size)
        assert list(_items(dynamodb_server, table)) == [str(address)]


async def test_a_store_that_does_not_know_of_parts_learns_of_them_and_removes_them(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server, table) as store, _opened(dynamodb_server, table) as other:
        saved, touched, deleted = [await _new(store, b"a" * (PART + 1)) for _ in range(3)]
        await other.save(saved, epoch=1, version=2, snapshot=b"small", ttl=600.0)
        await other.touch(touched, epoch=1, ttl=9_000.0)
        await other.delete(deleted, epoch=1)
        left = _items(dynamodb_server, table)
        assert sorted(name.partition("/")[0] for name in left) == ["#part", "#part", "session", "session"]
        ends = float(left[str(touched)]["expiresAt"]["N"])
        assert all(float(item["expiresAt"]["N"]) > ends for name, item in left.items() if name[0] == "#")


async def test_parts_outlive_their_record_and_go_with_it(dynamodb_server: DynamoServer, table: str) -> None:
    clock = ManualTime()
    async with _opened(dynamodb_server, table, clock=clock) as store:
        address = await _new(store, b"a" * (PART + 1), ttl=100.0)
        await store.touch(address, epoch=1, ttl=50_000.0)
        clock.advance(40_000)
        assert await store.expire() == 0
        assert (await store.claim(address, owner="node-2")).snapshot == b"a" * (PART + 1)
        await store.touch(address, epoch=2, ttl=10.0)
        clock.advance(11)
        assert await store.expire() == 1
        assert _items(dynamodb_server, table) == {}


async def test_readers_see_one_snapshot_whole_while_it_is_replaced(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server, table) as store, _opened(dynamodb_server, table) as other:
        address = await _new(store, b"0" * (2 * PART))

        async def write() -> None:
            for version in range(2, 6):
                await store.save(address, epoch=1, version=version, snapshot=b"%d" % version * (2 * PART), ttl=600.0)

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            while not writing.done():
                record = await other.load(address)
                assert record is not None
                assert len(record.snapshot) == 2 * PART
                assert len(set(record.snapshot)) == 1


async def test_parts_that_are_gone_are_said_to_be(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server, table) as store:
        address = await _new(store, b"a" * (PART + 1))
        part = next(name for name in _items(dynamodb_server, table) if name.endswith("/1"))
        dynamodb_server.call("DeleteItem", TableName=table, Key={"sessionId": {"S": part}})
        with pytest.raises(StoreCorrupt, match="parts of the snapshot"):
            await store.load(address)


async def test_a_snapshot_beyond_the_bound_is_refused_by_name_and_changes_nothing(
    dynamodb_server: DynamoServer, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.stores.dynamodb.bodies.MAX_BODY", 2 * PART)
    async with _opened(dynamodb_server, table) as store:
        address = await _new(store)
        with pytest.raises(DynamoTooLarge, match="keep less") as caught:
            await store.save(address, epoch=1, version=2, snapshot=bytes(2 * PART + 1), ttl=60.0)
        assert not caught.value.outcome_unknown
        assert list(_items(dynamodb_server, table)) == [str(address)]


# Around it


async def test_two_urls_of_one_table_have_one_identity_and_there_is_no_event_log(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server, table) as store:
        again = await open_store(dynamodb_server.url(table, connections=3))
        try:
            assert again.identity == store.identity  # type: ignore[attr-defined]
            assert event_log_of(again) is None
            assert again.shared
        finally:
            await again.aclose()


async def test_a_table_without_time_to_live_is_swept_by_the_nodes_and_that_is_said(
    dynamodb_server: DynamoServer, caplog: pytest.LogCaptureFixture
) -> None:
    name = fresh_table_name()
    dynamodb_server.create_table(name, TimeToLiveSpecification=None)
    async with _opened(dynamodb_server, name) as store:
        assert "time to live is off" in store.warnings[0]
        assert store.warnings[0] in caplog.text
        await asyncio.gather(*(_new(store, ttl=0.001) for _ in range(5)))
        await asyncio.sleep(0.01)
        assert [await store.expire(limit=3), await store.expire()] == [3, 2]


async def test_the_numbers_of_the_store_are_named_as_metrics(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server, table) as store:
        names = {f"store_{name}" for name in store.stats()}
        assert names <= {*GAUGES, *TOTALS}
