"""Two stores as one, while nodes move from one to the other, keep the contract of a store and of an event log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from understudy.stores import MemoryStore, SessionStore, SQLiteStore
from understudy.stores.moving import FollowingStore, MovingStore, StorePair
from understudy.stores.testing import EventLogContract, ManualTime, StoreContract, store_machine

QUICK = settings(max_examples=30, deadline=None, derandomize=True)


class _InMemory:
    pair: type[StorePair]

    async def open_store(self, clock: ManualTime) -> SessionStore:
        bounds = getattr(self, "bounds", None)
        former, next = (MemoryStore(clock, event_bounds=bounds) for _ in range(2))
        return self.pair(former, next, clock=clock)  # pyright: ignore[reportReturnType]


class TestFollowing(_InMemory, StoreContract):
    pair = FollowingStore


class TestMoving(StoreContract):
    """From memory to a file of SQLite."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "next.db"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return MovingStore(MemoryStore(clock), await SQLiteStore.open(self.path, clock=clock), clock=clock)


class TestFollowingLog(_InMemory, EventLogContract):
    pair = FollowingStore


class TestMovingLog(_InMemory, EventLogContract):
    pair = MovingStore

    async def test_expire_sweeps_what_is_too_old_and_nothing_else(self) -> None:
        """Each stream has left a mark in the former log, which goes too."""
        self.sweeps = False
        with pytest.raises(AssertionError, match=r"\[3, 3, 4\]"):
            await super().test_expire_sweeps_what_is_too_old_and_nothing_else()


def _in_memory(pair: type[StorePair]) -> type:
    async def open_store(clock: ManualTime) -> SessionStore:
        return pair(MemoryStore(clock), MemoryStore(clock), clock=clock)  # pyright: ignore[reportReturnType]

    return store_machine(open_store, settings=QUICK)


TestFollowingAgainstTheModel = _in_memory(FollowingStore)
TestMovingAgainstTheModel = _in_memory(MovingStore)
