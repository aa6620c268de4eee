"""`DynamoStore` when DynamoDB, the network, the credentials or the table are not as they should be.

Errors are answered as AWS documents them, by the front before moto: no signature and no permission is checked there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.certificates import self_signed
from support.dynamodb import DynamoServer, fresh_table_name
from support.fault_proxy import FaultProxy
from support.ports import free_port
from understudy.stores import (
    Address,
    RecordNotFound,
    SessionStore,
    StaleEpoch,
    StoreCorrupt,
    StoreUnavailable,
    StoreVersionError,
    open_store,
)
from understudy.stores.dynamodb import DynamoSettings, DynamoStore
from understudy.stores.dynamodb.bodies import PART
from understudy.stores.dynamodb.errors import DynamoRefused, DynamoSettingsError, DynamoThrottled, DynamoUnavailable


@pytest.fixture
def table(dynamodb_server: DynamoServer) -> str:
    name = fresh_table_name()
    dynamodb_server.create_table(name)
    return name


@asynccontextmanager
async def _opened(url: str, **options: Any) -> AsyncGenerator[DynamoStore]:
    store = await DynamoStore.open(DynamoSettings.from_url(url), **options)
    try:
        yield store
    finally:
        await store.aclose()


async def _new(store: SessionStore, snapshot: bytes = b"one") -> Address:
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="node-1", snapshot=snapshot, ttl=600.0)
    return address


async def _save(store: SessionStore, address: Address, version: int = 2, snapshot: bytes = b"two") -> None:
    await store.save(address, epoch=1, version=version, snapshot=snapshot, ttl=600.0)


CUTS = [False, True]
"""Before DynamoDB has done it, and after."""


# A connection that breaks once: the call's own repeat settles what became of it


@pytest.mark.parametrize("done", CUTS)
async def test_a_save_that_is_cut_is_done_once(dynamodb_server: DynamoServer, table: str, done: bool) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", "cut", done=done)
        await _save(store, address)
        record = await store.load(address)
        assert record is not None
        assert (record.epoch, record.version, record.snapshot) == (1, 2, b"two")
        assert store.stats()["requests_repeated"] == 1


@pytest.mark.parametrize("done", CUTS)
async def test_a_claim_that_is_cut_raises_the_epoch_once(dynamodb_server: DynamoServer, table: str, done: bool) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", "cut", done=done)
        record = await store.claim(address, owner="node-2")
        assert (record.epoch, record.owner, record.snapshot) == (2, "node-2", b"one")
        assert await store.load(address) == record


@pytest.mark.parametrize("done", CUTS)
async def test_a_creation_that_is_cut_is_done_once(dynamodb_server: DynamoServer, table: str, done: bool) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        dynamodb_server.fault(table, "PutItem", "cut", done=done)
        address = await _new(store)
        record = await store.load(address)
        assert record is not None
        assert record.epoch == 1


@pytest.mark.parametrize("done", CUTS)
async def test_a_deletion_that_is_cut_is_not_guessed_at(dynamodb_server: DynamoServer, table: str, done: bool) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "DeleteItem", "cut", done=done)
        if done:
            with pytest.raises(StoreUnavailable, match="by this call, or before it") as caught:
                await store.delete(address, epoch=1)
            assert caught.value.outcome_unknown
        else:
            assert await store.delete(address, epoch=1)
        assert await store.load(address) is None


async def test_a_claim_that_was_cut_and_lost_to_another_since_is_made_anew(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server.url(table)) as store, _opened(dynamodb_server.url(table)) as other:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", "cut", done=True, times=2)
        taken, _ = await asyncio.gather(
            store.claim(address, owner="node-2"), other.claim(address, owner="node-3"), return_exceptions=True
        )
        record = await store.load(address)
        assert record is not None
        claims = [one for one in (taken, _) if not isinstance(one, BaseException)]
        # Whoever was told an epoch alone holds it.
        assert len({claim.epoch for claim in claims}) == len(claims) == 2
        assert record.epoch == max(claim.epoch for claim in claims)


# A connection that breaks again and again: the caller is told what may have been done


@pytest.mark.parametrize("done", CUTS)
async def test_a_save_whose_answers_are_all_lost_says_that_it_may_have_been_done(
    dynamodb_server: DynamoServer, table: str, done: bool
) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", "cut", done=done, times=3)
        with pytest.raises(DynamoUnavailable, match="broke during UpdateItem") as caught:
            await _save(store, address)
        assert caught.value.outcome_unknown
        await _save(store, address)  # the repeat settles it
        record = await store.load(address)
        assert record is not None
        assert (record.version, record.snapshot) == (2, b"two")


async def test_a_doubt_stays_a_doubt_when_the_next_try_is_refused(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table), timeout=0.5) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", "cut", done=True)
        dynamodb_server.fault(table, "UpdateItem", code="ThrottlingException", message="slow down", times=100)
        with pytest.raises(DynamoThrottled) as caught:
            await store.claim(address, owner="node-2")
        assert caught.value.outcome_unknown


async def test_a_read_that_is_cut_has_changed_nothing(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "GetItem", "cut", times=3)
        with pytest.raises(StoreUnavailable) as caught:
            await store.load(address)
        assert not caught.value.outcome_unknown
        assert await store.load(address) is not None


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("count", [0, 1, 200])
async def test_a_claim_and_a_save_that_are_cut_at_any_byte_are_done_once(
    dynamodb_server: DynamoServer, table: str, direction: Any, count: int
) -> None:
    async with FaultProxy(dynamodb_server.port) as proxy:
        url = f"dynamodb://{table}?region=eu-west-1&endpoint=http://127.0.0.1:{proxy.port}"
        async with _opened(url) as store:
            address = await _new(store)
            proxy.cut_after(count, direction)
            assert (await store.claim(address, owner="node-2")).epoch == 2
            proxy.cut_after(count, direction)
            await store.save(address, epoch=2, version=2, snapshot=b"x" * 1000, ttl=60.0)
            record = await store.claim(address, owner="node-3")
            assert (record.epoch, record.version, record.snapshot) == (3, 2, b"x" * 1000)


async def test_connections_that_were_cut_while_idle_cost_no_call(dynamodb_server: DynamoServer, table: str) -> None:
    async with FaultProxy(dynamodb_server.port) as proxy:
        url = f"dynamodb://{table}?region=eu-west-1&endpoint=http://127.0.0.1:{proxy.port}"
        async with _opened(url) as store:
            address = await _new(store)
            for epoch in range(2, 5):
                proxy.cut()
                proxy.restore()
                assert (await store.claim(address, owner="node-2")).epoch == epoch


async def test_a_part_that_cannot_be_written_leaves_the_record_as_it_was(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "PutItem", "cut", done=True, times=9)
        with pytest.raises(StoreUnavailable) as caught:
            await _save(store, address, snapshot=bytes(3 * PART))
        assert not caught.value.outcome_unknown
        record = await store.load(address)
        assert record is not None
        assert (record.version, record.snapshot) == (1, b"one")
        await _save(store, address, snapshot=bytes(3 * PART))


async def test_a_claim_whose_parts_cannot_be_read_says_that_it_may_have_been_done(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store, bytes(PART + 1))
        dynamodb_server.fault(table, "GetItem", "cut", times=6)
        with pytest.raises(StoreUnavailable) as caught:
            await store.claim(address, owner="node-2")
        assert caught.value.outcome_unknown
        assert (await store.claim(address, owner="node-2")).epoch == 3


async def test_a_large_save_that_is_refused_leaves_no_parts(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", code="AccessDeniedException", message="not authorized")
        with pytest.raises(DynamoRefused):
            await _save(store, address, snapshot=bytes(2 * PART))
        items = dynamodb_server.call("Scan", TableName=table)["Items"]
        assert not [item for item in items if item["sessionId"]["S"].startswith("#part")]


# DynamoDB that is slow, throttles, fails or is away


THROTTLING = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")


@pytest.mark.parametrize("code", THROTTLING)
async def test_what_is_throttled_is_repeated_until_it_passes(
    dynamodb_server: DynamoServer, table: str, code: str
) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", code=code, message="too much", times=3)
        assert (await store.claim(address, owner="node-2")).epoch == 2
        assert store.stats()["requests_throttled"] == 3


async def test_what_is_throttled_for_longer_is_given_up_within_the_deadline(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server.url(table), timeout=0.6) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "*", code="ThrottlingException", message="too much", times=1000)
        began = time.monotonic()
        with pytest.raises(DynamoThrottled, match=r"throttles UpdateItem .* raise its capacity") as caught:
            await _save(store, address)
        assert time.monotonic() - began < 2
        assert not caught.value.outcome_unknown
        assert caught.value.retry_after > 0
        assert dynamodb_server.counts(table)["UpdateItem"] < 30


async def test_a_server_that_fails_is_asked_a_few_times(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        failing = {"code": "InternalServerError", "message": "internal", "status": 500}
        dynamodb_server.fault(table, "UpdateItem", times=2, done=True, **failing)
        assert (await store.claim(address, owner="node-2")).epoch == 2
        dynamodb_server.fault(table, "UpdateItem", times=3, **failing)
        with pytest.raises(DynamoUnavailable, match="DynamoDB failed at UpdateItem") as caught:
            await store.touch(address, epoch=2, ttl=60.0)
        assert caught.value.outcome_unknown


async def test_a_server_that_hangs_costs_a_call_its_deadline_and_no_more(
    dynamodb_server: DynamoServer, table: str
) -> None:
    async with _opened(dynamodb_server.url(table), timeout=0.5) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "*", "hang", times=2)
        began = time.monotonic()
        outcomes = await asyncio.gather(_save(store, address), store.load(address), return_exceptions=True)
        assert time.monotonic() - began < 3
        assert [outcome.outcome_unknown for outcome in outcomes if isinstance(outcome, StoreUnavailable)] == [
            True,
            False,
        ]
        await _save(store, address)


async def test_no_connection_that_gets_free_is_no_doubt(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table, connections=1), timeout=1.0) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "GetItem", "hang")
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_swallowed(store.load(address)))
            await asyncio.sleep(0)
            store._ask._timeout = 0.1
            with pytest.raises(StoreUnavailable, match="no connection to DynamoDB got free") as caught:
                await _save(store, address)
            assert not caught.value.outcome_unknown
            store._ask._timeout = 1.0
        assert isinstance(reading.result(), StoreUnavailable)
        await _save(store, address)


async def _swallowed(call: Any) -> object:
    try:
        return await call
    except StoreUnavailable as error:
        return error


async def test_no_more_calls_than_the_bound_are_under_way(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table), max_calls=4) as store:
        address = await _new(store)
        outcomes = await asyncio.gather(*(_swallowed(store.load(address)) for _ in range(6)))
        refused = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
        assert len(refused) == 2
        assert all("4 calls" in str(error) and not error.outcome_unknown for error in refused)


async def test_while_it_is_away_calls_fail_at_once_and_then_go_on(dynamodb_server: DynamoServer, table: str) -> None:
    async with FaultProxy(dynamodb_server.port) as proxy:
        url = f"dynamodb://{table}?region=eu-west-1&endpoint=http://127.0.0.1:{proxy.port}"
        async with _opened(url) as store:
            address = await _new(store)
            proxy.cut()
            began = time.monotonic()
            for call in (_save(store, address), store.load(address), store.ping()):
                with pytest.raises(StoreUnavailable):
                    await call
            assert time.monotonic() - began < 2
            proxy.restore()
            await _save(store, address)


# What is refused, at the start and later


REFUSALS = {
    "no table": ("ResourceNotFoundException", "Requested resource not found", "understudy store init"),
    "no permission": (
        "AccessDeniedException",
        "User: arn:aws:iam::1:user/x is not authorized to perform: dynamodb:DescribeTable",
        "do not permit .* not authorized to perform: dynamodb:DescribeTable",
    ),
    "unknown key": (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        "not know",
    ),
    "expired": ("ExpiredTokenException", "The security token included in the request is expired", "have expired"),
    "clock": (
        "InvalidSignatureException",
        "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z (20260101T001500Z - 5 min.)",
        "clock of this machine",
    ),
    "signature": (
        "InvalidSignatureException",
        "The request signature we calculated does not match; x-amz-security-token:hunter2",
        "wrong secret key",
    ),
    "key schema": (
        "ValidationException",
        "The provided key element does not match the schema",
        "another key than understudy's",
    ),
    "too large": ("ValidationException", "Item size has exceeded the maximum allowed size", "larger than DynamoDB"),
    "else": ("ValidationException", "Something is wrong", "refuses DescribeTable .* Something is wrong"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_said_in_one_message_at_the_start_and_is_an_outage_later(
    dynamodb_server: DynamoServer, table: str, name: str
) -> None:
    code, message, says = REFUSALS[name]
    dynamodb_server.fault(table, "DescribeTable", code=code, message=message)
    with pytest.raises(DynamoRefused, match=says) as caught:
        await open_store(dynamodb_server.url(table))
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        dynamodb_server.fault(table, "UpdateItem", code=code, message=message)
        with pytest.raises(StoreUnavailable) as later:
            await _save(store, address)
        assert not later.value.outcome_unknown
        assert later.value.retry_after > 1
        await _save(store, address)


@pytest.mark.parametrize("operation", ["DescribeTimeToLive", "GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan"])
async def test_each_permission_that_is_missing_is_found_at_the_start(
    dynamodb_server: DynamoServer, table: str, operation: str
) -> None:
    dynamodb_server.fault(table, operation, code="AccessDeniedException", message=f"not authorized: {operation}")
    with pytest.raises(DynamoRefused, match=f"do not permit {operation}"):
        await open_store(dynamodb_server.url(table))


async def test_a_table_that_is_not_there_is_not_made(dynamodb_server: DynamoServer) -> None:
    with pytest.raises(DynamoRefused, match=r"no table nowhere in eu-west-1 .*understudy store init"):
        await open_store(dynamodb_server.url("nowhere"))


@pytest.mark.parametrize(
    ("attributes", "keys"),
    [
        ({"id": "S"}, {"id": "HASH"}),
        ({"sessionId": "B"}, {"sessionId": "HASH"}),
        ({"sessionId": "S", "at": "N"}, {"sessionId": "HASH", "at": "RANGE"}),
    ],
)
async def test_a_table_with_another_key_is_refused(
    dynamodb_server: DynamoServer, attributes: dict[str, str], keys: dict[str, str]
) -> None:
    name = fresh_table_name()
    dynamodb_server.create_table(
        name,
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": kind} for one, kind in attributes.items()],
        KeySchema=[{"AttributeName": one, "KeyType": kind} for one, kind in keys.items()],
        TimeToLiveSpecification=None,
    )
    with pytest.raises(DynamoRefused, match=r"has the key .* sessionId \(S, HASH\) alone"):
        await open_store(dynamodb_server.url(name))


async def test_a_newer_format_and_foreign_items_are_left_alone(dynamodb_server: DynamoServer, table: str) -> None:
    schema = {"sessionId": {"S": "#understudy"}, "format": {"N": "2"}, "store": {"S": "x"}}
    dynamodb_server.call("PutItem", TableName=table, Item=schema)
    with pytest.raises(StoreVersionError, match="format 2; this understudy reads 1"):
        await open_store(dynamodb_server.url(table))
    dynamodb_server.call("PutItem", TableName=table, Item={"sessionId": {"S": "#understudy"}})
    with pytest.raises(StoreCorrupt, match="another program"):
        await open_store(dynamodb_server.url(table))


async def test_an_item_that_is_no_record_hurts_nobody_else(dynamodb_server: DynamoServer, table: str) -> None:
    dynamodb_server.call("PutItem", TableName=table, Item={"sessionId": {"S": "session/foreign"}, "data": {"S": "{}"}})
    foreign = Address("session", "foreign")
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        for call in (
            store.load(foreign),
            store.claim(foreign, owner="n"),
            _save(store, foreign),
            store.touch(foreign, epoch=1, ttl=60.0),
        ):
            with pytest.raises(StoreCorrupt, match="'session/foreign'"):
                await call
        assert [info.address for info in (await store.list()).records] == [address]
        assert await store.expire() == 0
        with pytest.raises(RecordNotFound):
            await store.claim(Address.new("session"), owner="n")


async def test_no_credentials_are_said(
    dynamodb_server: DynamoServer, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DynamoRefused, match="no credentials for DynamoDB: set AWS_ACCESS_KEY_ID"):
        await open_store(dynamodb_server.url(table))


async def test_credentials_come_from_a_profile(
    dynamodb_server: DynamoServer, table: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = A\naws_secret_access_key = B\n")
    (tmp_path / "config").write_text("[profile mine]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with _opened(f"dynamodb://{table}?profile=mine&endpoint={dynamodb_server.endpoint}") as store:
        await _new(store)
    with pytest.raises(DynamoSettingsError, match=r"profile other is not in ~/\.aws/config"):
        await open_store(f"dynamodb://{table}?profile=other&endpoint={dynamodb_server.endpoint}")


async def test_no_region_is_said(dynamodb_server: DynamoServer, table: str) -> None:
    with pytest.raises(DynamoSettingsError, match=r"no region is named: write dynamodb://table\?region="):
        await open_store(f"dynamodb://{table}?endpoint={dynamodb_server.endpoint}")


async def test_nobody_there_and_no_dynamodb_there_are_said(dynamodb_server: DynamoServer, table: str) -> None:
    with pytest.raises(DynamoUnavailable, match="out of reach"):
        await open_store(f"dynamodb://{table}?region=eu-west-1&endpoint=http://127.0.0.1:{free_port()}")
    for status, times in ((200, 7), (404, 7), (503, 21)):
        dynamodb_server.fault(table, text="<html>Welcome</html>", status=status, times=times)
        with pytest.raises(DynamoUnavailable, match=r"is no DynamoDB|DynamoDB failed"):
            await open_store(dynamodb_server.url(table))


async def test_a_page_of_a_proxy_is_not_taken_for_an_answer(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        for operation, call in (("GetItem", store.load(address)), ("UpdateItem", _save(store, address))):
            dynamodb_server.fault(table, operation, text="<html>Log in, please</html>", status=200)
            with pytest.raises(DynamoRefused, match="is no DynamoDB"):
                await call


async def test_tls_is_spoken_with_who_is_trusted_and_a_mismatch_is_said(
    dynamodb_server: DynamoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path / "tls")
    with DynamoServer(certificate) as server:
        with pytest.raises(DynamoRefused, match="certificate is not trusted"):
            await open_store(server.url("table"))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        with pytest.raises(DynamoRefused, match="there is no table"):
            await open_store(server.url("table"))
        with pytest.raises(DynamoUnavailable):
            await open_store(server.url("table").replace("https:", "http:"))
    with pytest.raises(DynamoRefused, match="speaks no TLS"):
        await open_store(dynamodb_server.url("table").replace("http:", "https:"))


async def test_a_stale_writer_stays_stale_whatever_breaks(dynamodb_server: DynamoServer, table: str) -> None:
    async with _opened(dynamodb_server.url(table)) as store:
        address = await _new(store)
        await store.claim(address, owner="node-2")
        dynamodb_server.fault(table, "UpdateItem", "cut", done=True)
        with pytest.raises(StaleEpoch):
            await _save(store, address)
