"""`FaultyStore`: a good store until it is told otherwise, and then bad in a way that can be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import get_args

import pytest
from understudy.stores import (
    Address,
    Faults,
    FaultyStore,
    MemoryStore,
    RecordNotFound,
    SessionStore,
    StaleEpoch,
    StoreCorrupt,
    StoreUnavailable,
)
from understudy.stores.faulty import Fault, Operation
from understudy.stores.testing import ManualTime, StoreContract


class TestAFaultyStoreWithoutFaultsKeepsTheContract(StoreContract):
    async def open_store(self, clock: ManualTime) -> SessionStore:
        return FaultyStore(MemoryStore(clock), seed=1)


class TestAFaultyStoreThatOnlyDelaysKeepsTheContract(StoreContract):
    async def open_store(self, clock: ManualTime) -> SessionStore:
        # Each delay gives the others a turn, so calls overtake each other.
        return FaultyStore(MemoryStore(clock), seed=1, faults=Faults(delay=0.5), sleep=lambda _: asyncio.sleep(0))


async def test_a_refused_save_has_not_happened() -> None:
    store, address = await _store_with_a_record()
    store.fail_next("save")
    with pytest.raises(StoreUnavailable) as caught:
        await _save(store, address)
    assert caught.value.outcome_unknown is False
    assert await _snapshot(store, address) == b"one"
    await _save(store, address)


async def test_a_save_whose_answer_is_lost_has_happened() -> None:
    store, address = await _store_with_a_record()
    store.fail_next("save", "lose")
    with pytest.raises(StoreUnavailable) as caught:
        await _save(store, address)
    assert caught.value.outcome_unknown is True
    assert await _snapshot(store, address) == b"two"
    await _save(store, address)  # idempotent: the repeat settles it


async def test_a_refusal_can_be_lost_as_well() -> None:
    store, address = await _store_with_a_record()
    await store.claim(address, owner="node-2")
    store.fail_next("save", "lose")
    with pytest.raises(StoreUnavailable) as caught:
        await _save(store, address)
    assert caught.value.outcome_unknown is True
    with pytest.raises(StaleEpoch):
        await _save(store, address)


@pytest.mark.parametrize(("fault", "meanwhile"), [("hang", b"one"), ("hang_after", b"two")])
async def test_a_hanging_save_answers_when_it_is_released(fault: Fault, meanwhile: bytes) -> None:
    store, address = await _store_with_a_record()
    store.fail_next("save", fault)
    async with asyncio.TaskGroup() as tasks:
        save = tasks.create_task(_save(store, address))
        await asyncio.sleep(0)
        assert store.hanging == 1
        assert await _snapshot(store, address) == meanwhile
        assert not save.done()
        assert store.release() == 1
    assert store.hanging == 0
    assert await _snapshot(store, address) == b"two"


@pytest.mark.parametrize(("fault", "afterwards"), [("hang", b"one"), ("hang_after", b"two")])
async def test_a_hanging_save_can_be_cancelled(fault: Fault, afterwards: bytes) -> None:
    store, address = await _store_with_a_record()
    store.fail_next("save", fault)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await _save(store, address)
    assert store.hanging == 0
    assert await _snapshot(store, address) == afterwards


async def test_closing_lets_hanging_calls_find_the_store_closed() -> None:
    store, address = await _store_with_a_record()
    store.fail_next("save", "hang")
    async with asyncio.TaskGroup() as tasks:
        save = tasks.create_task(_outcome(_save(store, address)))
        await asyncio.sleep(0)
        await store.aclose()
    assert save.result() == "StoreUnavailable"


async def test_a_delay_awaits_the_given_sleep_and_then_does_the_work() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    inner = MemoryStore()
    store = FaultyStore(inner, seed=3, faults=Faults(delay=1.0, longest_delay=4.0), sleep=sleep)
    for _ in range(100):
        await store.ping()
    assert len(slept) == 100
    assert 0 <= min(slept) < 1 < 3 < max(slept) <= 4
    store.fail_next("ping", "delay")
    await store.ping()
    assert slept[-1] == 4.0


async def test_scripted_faults_come_in_order_and_for_their_operation_only() -> None:
    store, address = await _store_with_a_record()
    store.fail_next("claim", "refuse", times=2)
    store.fail_next("claim", RecordNotFound(address))
    store.fail_next("claim", StoreCorrupt("the page is damaged"))
    await store.load(address)
    outcomes = [await _outcome(store.claim(address, owner="node-2")) for _ in range(5)]
    assert outcomes == ["StoreUnavailable", "StoreUnavailable", "RecordNotFound", "StoreCorrupt", "done"]
    record = await store.load(address)
    assert record is not None
    assert record.epoch == 2


async def test_while_disabled_nothing_is_injected_and_scripted_faults_wait() -> None:
    store = FaultyStore(MemoryStore(), seed=1, faults=Faults(refuse=1.0))
    store.fail_next("ping", "lose")
    store.enabled = False
    await store.ping()
    store.enabled = True
    with pytest.raises(StoreUnavailable) as caught:
        await store.ping()
    assert caught.value.outcome_unknown is True


@pytest.mark.parametrize("operation", get_args(Operation))
async def test_every_operation_can_fail(operation: Operation) -> None:
    store, address = await _store_with_a_record()
    log = store.events
    assert log is not None
    store.fail_next(operation)
    calls = {
        "create": lambda: store.create(Address.new("session"), tenant="acme", owner="n", snapshot=b"", ttl=60.0),
        "claim": lambda: store.claim(address, owner="node-2"),
        "load": lambda: store.load(address),
        "save": lambda: _save(store, address),
        "touch": lambda: store.touch(address, epoch=1, ttl=60.0),
        "delete": lambda: store.delete(address),
        "list": lambda: store.list(),
        "expire": lambda: store.expire(),
        "ping": lambda: store.ping(),
        "events.append": lambda: log.append(address, "stream", 1, [b"one"], head=b"", writer="node-1"),
        "events.read": lambda: log.read(address, "stream"),
        "events.drop": lambda: log.drop([(address, "stream")]),
        "events.drop_all": lambda: log.drop_all(address),
        "events.expire": lambda: log.expire(),
    }
    with pytest.raises(StoreUnavailable, match=f"injected fault: {operation}"):
        await calls[operation]()
    await calls[operation]()


async def test_the_same_seed_gives_the_same_faults_and_another_seed_gives_others() -> None:
    assert await _fates(seed=1) == await _fates(seed=1)
    assert await _fates(seed=1) != await _fates(seed=2)


async def test_calls_of_another_operation_do_not_shift_the_faults() -> None:
    assert await _fates(seed=1, pings_between=3) == await _fates(seed=1)


async def test_the_probabilities_are_kept_and_counted() -> None:
    store = FaultyStore(
        MemoryStore(), seed=5, faults=Faults(refuse=0.2, lose=0.1), operations={"ping": Faults(lose=0.5)}
    )
    for _ in range(2_000):
        await _outcome(store.load(Address("session", "a")))
        await _outcome(store.ping())
    counts = {name: sum(entry == name for entry in store.history) for name in (("load", "refuse"), ("load", "lose"))}
    assert 340 < counts["load", "refuse"] < 460
    assert 150 < counts["load", "lose"] < 250
    stats = store.stats()
    assert stats["calls"] == 4_000
    assert 900 < stats["lose"] - counts["load", "lose"] < 1_100
    assert stats["refuse"] == counts["load", "refuse"]


@pytest.mark.parametrize(
    ("faults", "says"),
    [({"refuse": 1.1}, "refuse is 1.1"), ({"lose": -0.1}, "lose is -0.1"), ({"refuse": 0.6, "hang": 0.6}, "in sum")],
)
def test_a_probability_that_is_none_is_refused(faults: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Faults(**faults)


def test_a_script_for_what_does_not_exist_is_refused() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    with pytest.raises(ValueError, match="no store operation 'sav'"):
        store.fail_next("sav")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no fault 'explode'"):
        store.fail_next("save", "explode")  # type: ignore[arg-type]


async def _store_with_a_record() -> tuple[FaultyStore, Address]:
    store = FaultyStore(MemoryStore(), seed=1)
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="node-1", snapshot=b"one", ttl=60.0)
    return store, address


async def _save(store: SessionStore, address: Address) -> None:
    await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)


async def _snapshot(store: FaultyStore, address: Address) -> bytes:
    record = await store.inner.load(address)
    assert record is not None
    return record.snapshot


async def _outcome(call: object) -> str:
    try:
        await call  # type: ignore[misc]
    except Exception as error:
        return type(error).__name__
    return "done"


async def _fates(*, seed: int, pings_between: int = 0) -> Sequence[object]:
    store = FaultyStore(
        MemoryStore(), seed=seed, faults=Faults(refuse=0.2, lose=0.2, delay=0.2), sleep=lambda _: asyncio.sleep(0)
    )
    for _ in range(200):
        await _outcome(store.load(Address("session", "a")))
        for _ in range(pings_between):
            await _outcome(store.ping())
    return [fault for operation, fault in store.history if operation == "load"]
