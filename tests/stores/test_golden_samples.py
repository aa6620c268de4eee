"""Old data: a sample of every format that a store ever wrote opens, and what is written now is as the newest sample.

If the last test fails, a format was changed: give it a new number, keep reading the old one, and add a sample of the
new one beside those in `golden/` (a failing comparison shows what is written now).
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from support.dynamodb import DynamoServer, fresh_table_name
from support.nats import fresh_name
from support.redis import RedisServer, fresh_prefix
from understudy.stores import (
    Address,
    EncryptedStore,
    KeyRing,
    LoggedStream,
    MasterKey,
    MemoryStore,
    Record,
    event_log_of,
    open_store,
)
from understudy.stores.dynamodb import items as dynamodb_items
from understudy.stores.nats import event_records, opening
from understudy.stores.nats.bucket import Bucket
from understudy.stores.nats.connection import close, connect
from understudy.stores.nats.settings import NatsSettings
from understudy.stores.postgresql import schema
from understudy.stores.redis import opening as redis_opening
from understudy.stores.seal import VERSION as SEAL_VERSION
from understudy.stores.sqlite import database_file

GOLDEN = Path(__file__).with_name("golden")
ADDRESS = Address("session", "golden")
RECORD = Record(ADDRESS, "acme", 3, 7, "node-2", 1_800_000_000.25, 1_800_000_100.5, 1_800_003_700.5, b"\0snapshot\xff")
STREAM = LoggedStream(b"head", 2, (b"two", b"three"), 3, 2, "w/1", True)
LATER = 1_800_000_200.0

FORMATS = {
    "sqlite": (database_file.SCHEMA_VERSION, "sql"),
    "postgresql": (schema.SCHEMA_VERSION, "sql"),
    "nats": (opening.FORMAT, "json"),
    "redis": (redis_opening.FORMAT, "json"),
    "dynamodb": (dynamodb_items.FORMAT, "json"),
    "seal": (SEAL_VERSION, "base64"),
}

KEPT = {
    *("name", "subjects", "metadata", "storage", "retention", "discard", "max_age", "max_bytes", "max_msgs"),
    *("max_msgs_per_subject", "allow_direct", "allow_msg_ttl", "allow_rollup_hdrs", "deny_delete", "deny_purge"),
}
"""What the store asks for of a stream."""


def sample(name: str, version: int) -> str:
    return (GOLDEN / f"{name}-{version}.{FORMATS[name][1]}").read_text()


def versions(name: str) -> range:
    return range(1, FORMATS[name][0] + 1)


def test_there_is_a_sample_of_every_format_and_no_other() -> None:
    wanted = {f"{name}-{version}.{end}" for name, (newest, end) in FORMATS.items() for version in range(1, newest + 1)}
    assert {path.name for path in GOLDEN.iterdir()} == wanted
    assert opening.FORMAT == event_records.FORMAT, "the samples of nats hold both: give them numbers of their own"


@pytest.mark.parametrize("version", versions("sqlite"))
async def test_a_sqlite_file_of_every_format_opens(tmp_path: Path, version: int) -> None:
    path = tmp_path / "golden.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sample("sqlite", version))
    await _opens(f"sqlite:///{path}", has_stream=version > 1)


@pytest.mark.parametrize("version", versions("redis"))
async def test_redis_keys_of_every_format_open(redis_server: RedisServer, version: int) -> None:
    prefix = fresh_prefix()
    _write_redis(redis_server, prefix, json.loads(sample("redis", version)))
    await _opens(f"{redis_server.url}?prefix={prefix}", has_stream=True)


@pytest.mark.parametrize("version", versions("nats"))
async def test_a_nats_bucket_of_every_format_opens(nats_url: str, version: int) -> None:
    name = fresh_name()
    golden = json.loads(sample("nats", version).replace("golden-bucket", name))
    async with _bucket(nats_url, name) as bucket:
        for stream in golden["streams"]:
            await bucket.client.request(f"$JS.API.STREAM.CREATE.{stream['name']}", json.dumps(stream).encode(), 5)
        for subject, value in golden["messages"]:
            await bucket.client.request(subject, bytes.fromhex(value), 5)
    # The address is part of a subject, and the bucket's name none of it.
    await _opens(f"{nats_url}/{name}", has_stream=True)


@pytest.mark.parametrize("version", versions("dynamodb"))
async def test_dynamodb_items_of_every_format_open(dynamodb_server: DynamoServer, version: int) -> None:
    table = fresh_table_name()
    dynamodb_server.create_table(table)
    for item in json.loads(sample("dynamodb", version)):
        dynamodb_server.call("PutItem", TableName=table, Item=item)
    await _opens(dynamodb_server.url(table), has_stream=False)


@pytest.mark.parametrize("version", versions("seal"))
async def test_a_seal_of_every_format_opens(version: int) -> None:
    inner = MemoryStore()
    sealed = base64.b64decode(sample("seal", version))
    await inner.create(ADDRESS, tenant="acme", owner="n", snapshot=sealed, ttl=60)
    store = EncryptedStore(inner, KeyRing([MasterKey("2026-10", bytes(range(32)))]))
    record = await store.load(ADDRESS)
    assert record is not None
    assert record.snapshot == RECORD.snapshot


async def test_a_sqlite_file_is_written_as_in_the_newest_sample(tmp_path: Path) -> None:
    await _written(f"sqlite:///{tmp_path}/new.db")
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript(sample("sqlite", database_file.SCHEMA_VERSION))
    assert _dumped(tmp_path / "new.db") == _dumped(tmp_path / "old.db")


async def test_redis_keys_are_written_as_in_the_newest_sample(redis_server: RedisServer) -> None:
    prefix = fresh_prefix()
    await _written(f"{redis_server.url}?prefix={prefix}")
    assert _read_redis(redis_server, prefix) == json.loads(sample("redis", redis_opening.FORMAT))


async def test_a_nats_bucket_is_written_as_in_the_newest_sample(nats_url: str) -> None:
    name = fresh_name()
    await _written(f"{nats_url}/{name}")
    golden = json.loads(sample("nats", opening.FORMAT).replace("golden-bucket", name))
    async with _bucket(nats_url, name) as bucket:
        assert await _read_nats(bucket) == golden


async def test_dynamodb_items_are_written_as_in_the_newest_sample(dynamodb_server: DynamoServer) -> None:
    table = fresh_table_name()
    dynamodb_server.create_table(table)
    await _written(dynamodb_server.url(table))
    found = dynamodb_server.call("Scan", TableName=table)["Items"]
    for item in found:
        # Made up anew each time: the store's id, and the mark of the last claim.
        if "claim" in item:
            assert len(base64.b64decode(item["claim"]["B"])) == 9
            item["claim"] = {"B": "AAECAwQFBgcI"}
        if "store" in item:
            assert re.fullmatch("[0-9a-f]{16}", item["store"]["S"])
            item["store"] = {"S": "0123456789abcdef"}
    kept = [item for item in found if item["sessionId"]["S"] not in ("#ping", "#probe")]
    golden = json.loads(sample("dynamodb", dynamodb_items.FORMAT))
    assert sorted(kept, key=str) == sorted(golden, key=str)


async def _written(url: str) -> None:
    """Write `RECORD` and `STREAM`, step by step, as nodes come by them."""
    now = [RECORD.created]
    store = await open_store(url, clock=lambda: now[0])
    await store.create(ADDRESS, tenant="acme", owner="node-1", snapshot=b"one", ttl=600)
    await store.claim(ADDRESS, owner="node-1")
    await store.claim(ADDRESS, owner="node-2")
    now[0] = RECORD.updated
    for version in range(2, 8):
        await store.save(ADDRESS, epoch=3, version=version, snapshot=RECORD.snapshot, ttl=3600)
    assert await store.load(ADDRESS) == RECORD
    log = event_log_of(store)
    if log is not None:
        await log.append(ADDRESS, "call-1", 2, [b"two"], head=b"head", writer="w/1")
        await log.append(ADDRESS, "call-1", 3, [b"three"], head=b"head", writer="w/1", ends=True)
        assert await log.read(ADDRESS, "call-1") == STREAM
    await store.aclose()


async def _opens(url: str, *, has_stream: bool) -> None:
    store = await open_store(url, clock=lambda: LATER)
    assert await store.load(ADDRESS) == RECORD
    assert (await store.list(tenant="acme")).records[0].address == ADDRESS
    log = event_log_of(store)
    if log is None:
        assert not has_stream
    else:
        assert await log.read(ADDRESS, "call-1") == (STREAM if has_stream else None)
    assert (await store.claim(ADDRESS, owner="node-3")).epoch == 4
    await store.save(ADDRESS, epoch=4, version=8, snapshot=b"new", ttl=60.0)
    await store.aclose()


def _dumped(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        lines = [re.sub(r"\s+", " ", line) for line in connection.iterdump()]
        return [
            *sorted(lines),
            *(str(connection.execute(f"PRAGMA {p}").fetchone()) for p in ("user_version", "application_id")),
        ]


def _write_redis(server: RedisServer, prefix: str, golden: dict[str, Any]) -> None:
    write = {"hash": "HSET", "zset": "ZADD", "list": "RPUSH", "set": "SADD", "string": "SET"}
    for key, (kind, values) in golden.items():
        words = [bytes.fromhex(value) for value in values]
        if kind == "zset":
            words = [word for pair in zip(words[1::2], words[::2], strict=True) for word in pair]
        server.command(write[kind], key.replace("golden-prefix", prefix), *words)


def _read_redis(server: RedisServer, prefix: str) -> dict[str, Any]:
    read = {
        "hash": lambda key: server.command("HGETALL", key),
        "zset": lambda key: server.command("ZRANGE", key, 0, -1, "WITHSCORES"),
        "list": lambda key: server.command("LRANGE", key, 0, -1),
        "set": lambda key: server.command("SMEMBERS", key),
        "string": lambda key: [server.command("GET", key)],
    }
    found: dict[str, Any] = {}
    for key in sorted(server.command("KEYS", f"{prefix}:*") + server.command("KEYS", f"{{{prefix}:*")):
        kind = server.command("TYPE", key)
        kind = kind.decode() if isinstance(kind, bytes) else kind
        if key.endswith((b":probe",)):
            continue
        values = read[kind](key)
        for place, value in enumerate(values):
            # Made up anew each time: the store's id, and the mark of who gave the epoch out.
            if kind == "hash" and value in (b"id", b"w") and re.fullmatch(rb"[0-9a-f]{16}", values[place + 1]):
                values[place + 1] = b"0123456789abcdef"
        found[key.decode().replace(prefix, "golden-prefix")] = [kind, [value.hex() for value in values]]
    return found


@asynccontextmanager
async def _bucket(url: str, name: str) -> AsyncGenerator[Bucket]:
    client = await connect(NatsSettings.from_url(url), name="golden")
    try:
        yield Bucket(client, name, 5.0)
    finally:
        await close(client, timeout=1.0)


async def _read_nats(bucket: Bucket) -> dict[str, Any]:
    """What the store has asked for of its streams, and all messages with their subjects."""
    streams: list[dict[str, Any]] = []
    messages: list[list[str]] = []
    for stream in (bucket.stream, f"EVENTS_{bucket.name}"):
        reply = await bucket.client.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5)
        answer = json.loads(reply.data)
        config = {key: value for key, value in answer["config"].items() if key in KEPT}
        # The server adds marks of its own.
        config["metadata"] = {k: v for k, v in config["metadata"].items() if not k.startswith("_nats")}
        streams.append(config)
        for number in range(answer["state"]["first_seq"], answer["state"]["last_seq"] + 1):
            request = json.dumps({"seq": number}).encode()
            found = json.loads((await bucket.client.request(f"$JS.API.STREAM.MSG.GET.{stream}", request, 5)).data)
            if "message" in found:
                message = found["message"]
                messages.append([message["subject"], base64.b64decode(message.get("data", "")).hex()])
    return {"streams": streams, "messages": messages}
