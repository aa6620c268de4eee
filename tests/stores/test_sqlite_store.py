"""`SQLiteStore`: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from hypothesis import settings
from understudy.stores import Address, SessionStore, SQLiteStore, StaleEpoch, StoreUnavailable
from understudy.stores.testing import ManualTime, StoreContract, store_machine


class TestSQLiteStoreKeepsTheContract(StoreContract):
    path: Path

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.db"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await SQLiteStore.open(self.path, clock=clock)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await SQLiteStore.open(self.path, clock=clock)


async def _open_anywhere(clock: ManualTime) -> SessionStore:
    return await SQLiteStore.open(Path(tempfile.mkdtemp(dir=_scratch.name)) / "sessions.db", clock=clock)


_scratch = tempfile.TemporaryDirectory(prefix="understudy-", ignore_cleanup_errors=True)
TestSQLiteStoreAgainstTheModel = store_machine(_open_anywhere, settings=settings(max_examples=25, deadline=None))


@pytest.fixture(scope="module", autouse=True)
def _scratch_goes_with_the_module() -> object:
    yield
    _scratch.cleanup()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def test_writes_of_one_moment_share_commits(path: Path) -> None:
    async with _opened(path) as store:
        addresses = await _new(store, 500)
        before = store.stats()
        await _save_all(store, addresses)
        after = store.stats()
    assert after["write_operations"] - before["write_operations"] == 500
    assert after["write_commits"] - before["write_commits"] <= 5


async def test_a_commit_holds_no_more_than_its_bound(path: Path) -> None:
    async with _opened(path, max_group=7) as store:
        await _save_all(store, await _new(store, 50))
        assert store.stats()["write_largest_group"] == 7


async def test_a_refusal_does_not_spoil_the_commit_that_it_shares(path: Path) -> None:
    async with _opened(path) as store:
        addresses = await _new(store, 30)
        before = store.stats()["write_commits"]
        answers = await asyncio.gather(
            *(
                store.save(address, epoch=1 + n % 2, version=2, snapshot=b"two", ttl=60.0)
                for n, address in enumerate(addresses)
            ),
            return_exceptions=True,
        )
        assert answers[::2] == [None] * 15
        assert {type(answer) for answer in answers[1::2]} == {StaleEpoch}
        assert store.stats()["write_commits"] - before <= 2
    async with _opened(path) as store:
        saved = [await store.load(address) for address in addresses]
    assert [record is not None and record.version for record in saved] == [2, 1] * 15


async def test_the_event_loop_goes_on_while_a_commit_is_slow(path: Path) -> None:
    async with _opened(path, busy_timeout=20.0) as store, asyncio.TaskGroup() as tasks:
        (address,) = await _new(store, 1)
        with _locked(path) as release:
            save = tasks.create_task(store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0))
            for _ in range(20):
                await asyncio.sleep(0.002)
            assert not save.done()
            # Reading needs no lock: an actor can wake, in its last saved state, while a write waits.
            record = await store.load(address)
            assert record is not None
            assert record.snapshot == b"one"
            release()
        await save
        assert (await store.claim(address, owner="node-2")).snapshot == b"two"


async def test_a_save_gets_through_while_the_event_loop_is_busy_with_other_work(path: Path) -> None:
    async with _opened(path) as store, asyncio.TaskGroup() as tasks:
        (address,) = await _new(store, 1)

        async def compute() -> None:
            while True:
                until = time.perf_counter() + 0.0001
                while time.perf_counter() < until:
                    pass
                await asyncio.sleep(0)

        busy = [tasks.create_task(compute()) for _ in range(5)]
        started = time.perf_counter()
        for version in range(2, 22):
            await store.save(address, epoch=1, version=version, snapshot=b"x", ttl=60.0)
        taken = time.perf_counter() - started
        for task in busy:
            task.cancel()
    # 0.1 s on an idle machine with GiveWay; without it, 15 s.
    assert taken < 6.0


async def test_a_file_that_somebody_else_keeps_locked_is_unavailable_and_then_well_again(path: Path) -> None:
    async with _opened(path, busy_timeout=0.05) as store:
        (address,) = await _new(store, 1)
        with _locked(path):
            with pytest.raises(StoreUnavailable, match="locked by another process") as caught:
                await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
            assert caught.value.outcome_unknown is False
            assert str(path) in str(caught.value)
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.ping()
        await store.ping()
        await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)


async def test_at_the_bound_of_waiting_calls_the_next_is_refused_and_those_before_are_done(path: Path) -> None:
    async with _opened(path, max_queued=3, busy_timeout=20.0) as store, asyncio.TaskGroup() as tasks:
        first, *waiting, refused = [(await _new(store, 1))[0] for _ in range(5)]
        with _locked(path) as release:
            saves = [tasks.create_task(store.save(first, epoch=1, version=2, snapshot=b"two", ttl=60.0))]
            await asyncio.sleep(0)
            while store.stats()["write_queued"]:
                await asyncio.sleep(0.001)
            saves += [
                tasks.create_task(store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0))
                for address in waiting
            ]
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailable, match="3 store calls are waiting") as caught:
                await store.save(refused, epoch=1, version=2, snapshot=b"two", ttl=60.0)
            assert caught.value.outcome_unknown is False
            release()
        await asyncio.gather(*saves)
        await store.save(refused, epoch=1, version=2, snapshot=b"two", ttl=60.0)


async def test_a_full_database_refuses_what_does_not_fit_and_takes_what_does(path: Path) -> None:
    async with _opened(path) as store:
        addresses = await _new(store, 4)
        await _on_the_writer(store, "PRAGMA max_page_count = 12")
        answers = await asyncio.gather(
            *(
                store.save(address, epoch=1, version=2, snapshot=b"x" * (1_000_000 if n == 2 else 4), ttl=60.0)
                for n, address in enumerate(addresses)
            ),
            return_exceptions=True,
        )
        refusal = answers.pop(2)
        assert answers == [None, None, None]
        assert isinstance(refusal, StoreUnavailable)
        assert "full" in str(refusal)
        assert refusal.outcome_unknown is False
        await _on_the_writer(store, "PRAGMA max_page_count = 1000000")
        await store.save(addresses[2], epoch=1, version=2, snapshot=b"x" * 1_000_000, ttl=60.0)


async def test_a_write_into_a_removed_file_is_refused_rather_than_lost(path: Path) -> None:
    async with _opened(path) as store:
        address = Address.new("session")
        await store.create(address, tenant="acme", owner="node-1", snapshot=b"one", ttl=60.0)
        os.unlink(path)
        with pytest.raises(StoreUnavailable, match="removed or replaced") as caught:
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0)
        assert caught.value.outcome_unknown is False


async def test_a_removed_file_is_found_out_by_ping(path: Path) -> None:
    async with _opened(path) as store:
        await store.ping()
        os.rename(path, f"{path}.moved")
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await store.ping()


async def test_closing_waits_for_accepted_writes_even_when_cancelled_once(path: Path) -> None:
    store = await SQLiteStore.open(path, busy_timeout=20.0)
    (address,) = await _new(store, 1)
    async with asyncio.TaskGroup() as tasks:
        with _locked(path) as release:
            save = tasks.create_task(store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0))
            await asyncio.sleep(0)
            closing = tasks.create_task(store.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            release()
        await store.aclose()
        await save


async def test_a_closed_store_leaves_one_file(path: Path) -> None:
    async with _opened(path) as store:
        await _new(store, 3)
    assert [entry.name for entry in path.parent.iterdir()] == ["sessions.db"]


async def test_the_log_does_not_grow_with_the_writes(path: Path) -> None:
    async with _opened(path) as store:
        addresses = await _new(store, 50)
        for version in range(2, 42):
            await asyncio.gather(
                *(store.save(a, epoch=1, version=version, snapshot=b"x" * 5_000, ttl=60.0) for a in addresses),
                *(store.load(a) for a in addresses),
            )
        log = os.stat(f"{path}-wal").st_size
    assert log < 16 * 1024**2


@pytest.mark.parametrize("tenant", [None, "acme"])
async def test_every_statement_on_the_request_path_uses_an_index(path: Path, tenant: str | None) -> None:
    from understudy.stores.sqlite import statements as sqlite_statements

    names = ("_CLAIM", "_LOAD", "_SAVE", "_TOUCH", "_DELETE", "_EXPIRE")
    statements = [getattr(sqlite_statements, name) for name in names]
    statements.append(sqlite_statements._PAGE if tenant is None else sqlite_statements._PAGE_OF_TENANT)
    async with _opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?")).fetchall()
            steps = " / ".join(row[3] for row in plan)
            assert "SCAN" not in steps, steps
            assert "TEMP B-TREE" not in steps, steps


@asynccontextmanager
async def _opened(path: Path, **options: object) -> AsyncGenerator[SQLiteStore]:
    store = await SQLiteStore.open(path, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()


class _locked:  # noqa: N801 - reads as a word in a `with`
    """Hold the write lock of the file at `path` until the block ends or the function it gives is called."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> Callable[[], None]:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._release

    def __exit__(self, *_: object) -> None:
        self._release()
        self._connection.close()

    def _release(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


async def _new(store: SQLiteStore, count: int) -> list[Address]:
    addresses = [Address.new("session") for _ in range(count)]
    await asyncio.gather(
        *(store.create(address, tenant="acme", owner="node-1", snapshot=b"one", ttl=60.0) for address in addresses)
    )
    return addresses


async def _save_all(store: SQLiteStore, addresses: list[Address]) -> None:
    await asyncio.gather(*(store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60.0) for address in addresses))


def _on_the_writer(store: SQLiteStore, pragma: str) -> Awaitable[object]:
    return store._writer.submit(lambda cursor: cursor.execute(pragma).fetchall())
