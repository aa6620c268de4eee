"""Time, a store and a kind for the tests of the actor core."""

import pytest
from support.counting import CounterKind, a_store
from understudy.actors.testing import ManualClock
from understudy.stores import MemoryStore
from understudy.stores.faulty import FaultyStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return a_store(clock)


@pytest.fixture
def faulty(store: MemoryStore) -> FaultyStore:
    return FaultyStore(store, seed=1)


@pytest.fixture
def kind() -> CounterKind:
    return CounterKind()
