"""`open_node_store`: one store of several, and nothing that stays open where one of them is not there."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from edge.server import Stage, make_server
from understudy.runtime import Runtime
from understudy.runtime.node_store import choose_event_log, open_node_store
from understudy.runtime.options import RuntimeOptions
from understudy.stores import (
    Address,
    EncryptedStore,
    EventLogBounds,
    KeyRing,
    MasterKey,
    MemoryStore,
    SQLiteStore,
    StoreUnavailable,
)
from understudy.stores.memory_events import MemoryEventLog
from understudy.stores.moving import FollowingStore, MovingStore

SECRET = b"what nobody may read in the store"


class Kept(MemoryStore):
    """Says that nodes share it, and knows whether it is closed. `answers`: whether somebody is there."""

    shared = True

    def __init__(self, identity: str, *, answers: bool = True) -> None:
        super().__init__()
        self.identity = identity
        self.answers = answers
        self.closed = False

    async def ping(self) -> None:
        if not self.answers:
            raise StoreUnavailable(f"{self.identity} is not there", outcome_unknown=False)

    async def list(self, **which: Any) -> Any:
        await self.ping()
        return await super().list(**which)

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()


class WithoutLog(Kept):
    events = None  # type: ignore[assignment]


def asked_for(**options: Any) -> RuntimeOptions:
    return Runtime(make_server(Stage()), **options)._options


@pytest.mark.parametrize(("other", "kind"), [("next_store", FollowingStore), ("former_store", MovingStore)])
async def test_both_stores_of_a_move_are_one_and_are_closed_together(other: str, kind: type) -> None:
    store, second = Kept("A"), Kept("B")
    async with AsyncExitStack() as stack:
        opened = await open_node_store(asked_for(store=store, **{other: second}), stack)
        assert isinstance(opened, kind)
        assert not store.closed
        assert not second.closed
    assert store.closed
    assert second.closed


@pytest.mark.parametrize("other", ["next_store", "former_store"])
@pytest.mark.parametrize("missing", ["A", "B"])
async def test_a_store_that_is_not_there_is_told_at_the_start_and_none_stays_open(other: str, missing: str) -> None:
    store, second = Kept("A", answers=missing != "A"), Kept("B", answers=missing != "B")
    async with AsyncExitStack() as stack:
        with pytest.raises(StoreUnavailable, match=f"{missing} is not there"):
            await open_node_store(asked_for(store=store, **{other: second}), stack)
    assert store.closed
    assert second.closed


async def test_a_url_is_opened_with_the_bounds_of_its_event_log(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        options = asked_for(store=f"sqlite:///{tmp_path / 'sessions.db'}", event_bounds=EventLogBounds(max_events=7))
        store = await open_node_store(options, stack)
        assert isinstance(store, SQLiteStore)
        assert choose_event_log(options, store) is store.events
        assert store.events.bounds.max_events == 7


async def test_what_is_encrypted_is_so_in_both_stores_of_a_move() -> None:
    stores = Kept("A"), Kept("B")
    options = asked_for(store=stores[0], next_store=stores[1], encryption=KeyRing([MasterKey("k", b"k" * 32)]))
    address = Address.new("session")
    async with AsyncExitStack() as stack:
        store = await open_node_store(options, stack)
        assert isinstance(store, EncryptedStore)
        await store.create(address, tenant="acme", owner="n", snapshot=SECRET, ttl=60.0)
        kept = [record for each in stores if (record := await each.load(address)) is not None]
        assert kept
        assert not [record for record in kept if SECRET in record.snapshot]


def test_streams_are_kept_where_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    store, own = Kept("A"), MemoryEventLog()
    assert choose_event_log(asked_for(), store) is store.events
    assert choose_event_log(asked_for(event_log="off"), store) is None
    assert choose_event_log(asked_for(event_log=own), store) is own
    assert not caplog.records


def test_that_streams_do_not_outlive_their_node_is_told_where_they_might(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_event_log(asked_for(event_log="off"), WithoutLog("A")) is None
    assert not caplog.records
    assert choose_event_log(asked_for(), WithoutLog("A")) is None
    assert "the store has no event log" in caplog.text
