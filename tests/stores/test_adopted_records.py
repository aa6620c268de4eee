"""`adopt`: a record comes into another store as it was, over what the copier knows, and over nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_commands.conftest import run
from support.dynamodb import fresh_table_name
from support.nats import fresh_name
from support.redis import fresh_prefix
from understudy.stores import Address, Record, RecordExists, StaleEpoch, open_store
from understudy.stores.adopting import AdoptsRecords
from understudy.stores.testing import ManualTime

NOW = 1_800_000_000.0


@pytest.fixture(
    params=["memory", "sqlite", "nats", "postgresql", "redis", "dynamodb", "large in nats", "large in dynamodb"]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/a.db"
        case "redis":
            return f"{request.getfixturevalue('redis_url')}?prefix={fresh_prefix()}"
        case "postgresql":
            return f"{request.getfixturevalue('postgres_server').url()}?schema={fresh_name().replace('-', '_')}"
        case "dynamodb" | "large in dynamodb":
            url: str = request.getfixturevalue("dynamodb_server").url(fresh_table_name())
            assert run("init", url).exit_code == 0
            return url
        case _:
            return f"{request.getfixturevalue('nats_url')}/{fresh_name()}"


@pytest.fixture
async def store(request: pytest.FixtureRequest, url: str) -> AsyncGenerator[Any]:
    time = ManualTime(NOW)
    made: Any = await open_store(url, clock=time)
    made.time = time
    made.large = b"x" * 3_000_000 if "large" in request.node.name else b"state"
    yield made
    await made.aclose()


def record(store: Any, **changes: Any) -> Record:
    found = Record(
        Address("session", "a"), "acme", 7, 42, "copier", NOW - 500.5, NOW - 3.25, NOW + 100.75, store.large
    )  # fmt: skip
    return replace(found, **changes)


async def test_a_record_is_adopted_as_it_was_and_goes_on_from_there(store: Any) -> None:
    assert isinstance(store, AdoptsRecords)
    old = record(store)
    await store.adopt(old)
    assert await store.load(old.address) == old
    assert [info.expires for info in (await store.list(tenant="acme")).records] == [old.expires]
    with pytest.raises(StaleEpoch):
        await store.save(old.address, epoch=6, version=43, snapshot=b"late", ttl=60)
    claimed = await store.claim(old.address, owner="node")
    assert (claimed.epoch, claimed.version, claimed.snapshot) == (8, 42, old.snapshot)
    with pytest.raises(StaleEpoch):
        await store.save(old.address, epoch=7, version=43, snapshot=b"late", ttl=60)
    await store.save(old.address, epoch=8, version=43, snapshot=b"new", ttl=60)


async def test_a_repeat_is_acknowledged_and_anything_else_that_is_there_is_left(store: Any) -> None:
    old = record(store)
    await store.adopt(old)
    await store.adopt(old)
    await store.adopt(replace(old, snapshot=b"other", tenant="blue"))
    assert await store.load(old.address) == old
    for other in (replace(old, version=43), replace(old, epoch=8), replace(old, epoch=6, version=41)):
        for over in (None, (7, 41), (6, 42), (8, 42)):
            with pytest.raises(RecordExists):
                await store.adopt(other, over=over)
    await store.claim(old.address, owner="node")
    with pytest.raises(RecordExists):
        await store.adopt(replace(old, version=43), over=(7, 42))
    found = await store.load(old.address)
    assert found == replace(old, epoch=8, owner="node")


async def test_what_the_copier_knows_is_replaced_whole(store: Any) -> None:
    old = record(store)
    await store.adopt(old)
    new = replace(old, epoch=9, version=50, tenant="blue", snapshot=b"short", updated=NOW, expires=NOW + 30)
    await store.adopt(new, over=(7, 42))
    assert await store.load(old.address) == new
    assert (await store.list(tenant="acme")).records == ()
    assert [info.version for info in (await store.list(tenant="blue")).records] == [50]
    touched = replace(new, expires=NOW + 500)
    await store.adopt(touched, over=(9, 50))
    assert await store.load(old.address) == touched
    store.time.advance(40)
    assert await store.load(old.address) == touched
    store.time.advance(500)
    assert await store.load(old.address) is None
    assert (await store.list()).records == ()


async def test_an_expired_record_is_no_hindrance(store: Any) -> None:
    old = record(store)
    await store.adopt(old)
    store.time.advance(200)
    again = replace(old, epoch=3, version=2, tenant="blue", expires=store.time() + 50)
    await store.adopt(again)
    assert await store.load(old.address) == again
    assert [info.tenant for info in (await store.list()).records] == ["blue"]


async def test_a_record_that_was_never_there_is_not_asked_for(store: Any) -> None:
    old = record(store)
    await store.adopt(old, over=(7, 41))  # what was known is gone by now
    assert await store.load(old.address) == old
