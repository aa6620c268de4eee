"""What `SQLiteStore.open` refuses, and that it leaves alone what it refuses."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from understudy.stores import Address, SQLiteStore, StoreCorrupt, StoreUnavailable, StoreVersionError
from understudy.stores.sqlite.database_file import APPLICATION_ID, SCHEMA_VERSION


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store of twenty records, closed."""
    path = tmp_path / "sessions.db"
    store = await SQLiteStore.open(path)
    for _ in range(20):
        await _create(store, Address.new("session"))
    await store.aclose()
    return path


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with _left_alone(path.parent), pytest.raises(StoreVersionError) as caught:
        await SQLiteStore.open(path)
    assert str(path) in str(caught.value)
    assert f"version {SCHEMA_VERSION + 1}" in str(caught.value)
    assert f"up to {SCHEMA_VERSION}" in str(caught.value)


async def test_a_newer_version_that_only_the_log_tells_of_is_refused_too(path: Path, tmp_path: Path) -> None:
    # As a newer understudy leaves it when it is killed just after a migration.
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{crashed / path.name}{suffix}")
    assert (crashed / "sessions.db-wal").stat().st_size
    with _left_alone(crashed, but_for="sessions.db-shm"), pytest.raises(StoreVersionError):
        await SQLiteStore.open(crashed / path.name)


@pytest.mark.parametrize(
    "content",
    [b"\0", b"hello, this is no database\n" * 40, b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 4096],
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with _left_alone(tmp_path), pytest.raises(StoreCorrupt) as caught:
        await SQLiteStore.open(path)
    assert str(path) in str(caught.value)


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE records (number INTEGER PRIMARY KEY)")
    with _left_alone(tmp_path), pytest.raises(StoreCorrupt, match="of something else"):
        await SQLiteStore.open(path)


async def test_a_file_with_our_stamp_and_no_records_table_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hollow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    with _left_alone(tmp_path), pytest.raises(StoreCorrupt, match="no such table"):
        await SQLiteStore.open(path)


async def test_a_file_with_our_stamp_and_no_event_tables_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE events")
    with _left_alone(path.parent), pytest.raises(StoreCorrupt, match="no such table"):
        await SQLiteStore.open(path)


FIRST_VERSION = """
    CREATE TABLE records (
        number INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        tenant TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        version INTEGER NOT NULL,
        owner TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        expires REAL NOT NULL,
        snapshot BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX records_by_address ON records (kind, id);
    CREATE INDEX records_by_tenant ON records (tenant);
    CREATE INDEX records_by_expiry ON records (expires);
    PRAGMA application_id = 0x55535459;
    PRAGMA user_version = 1;
    PRAGMA journal_mode = WAL;
    INSERT INTO records VALUES (1, 'session', 'a', 'acme', 3, 7, 'node-1', 1.0, 2.0, 9e9, x'6f6c64');
"""
"""As understudy wrote it before there were event logs."""


async def test_a_file_of_the_first_version_gains_an_event_log_and_keeps_its_records(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST_VERSION)
    address = Address("session", "a")
    for number in (1, 2):
        store = await SQLiteStore.open(path)
        try:
            record = await store.load(address)
            assert record is not None
            assert (record.epoch, record.version, record.snapshot) == (3, 7, b"old")
            await store.events.append(address, "stream", number, [b"event"], head=b"", writer="w")
        finally:
            await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        # As a process of the first version does that still has the file open, when it looks whether it can write.
        connection.execute("PRAGMA user_version = 1")
    store = await SQLiteStore.open(path)
    logged = await store.events.read(address, "stream")
    assert logged is not None
    assert logged.events == (b"event", b"event")
    await store.aclose()


async def test_many_who_bring_a_file_of_the_first_version_up_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST_VERSION)
    stores = await asyncio.gather(*(SQLiteStore.open(path) for _ in range(8)))
    for number, store in enumerate(stores, 1):
        await store.events.append(Address("session", "a"), "stream", number, [b"event"], head=b"", writer="w")
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize("keep", [0.001, 0.3, 0.5, 0.9999])
async def test_a_truncated_file_is_refused_and_left_alone(path: Path, keep: float) -> None:
    os.truncate(path, int(keep * os.stat(path).st_size))
    with _left_alone(path.parent), pytest.raises(StoreCorrupt) as caught:
        await SQLiteStore.open(path)
    assert str(path) in str(caught.value)


async def test_a_file_with_a_damaged_schema_is_refused_and_left_alone(path: Path) -> None:
    _overwrite(path, 100, b"\xa5" * 3996)
    with _left_alone(path.parent), pytest.raises(StoreCorrupt):
        await SQLiteStore.open(path)


async def test_a_page_that_is_damaged_under_a_running_store_spoils_only_what_is_on_it(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = await SQLiteStore.open(path)
    good, bad = Address("session", "good"), Address("session", "bad")
    await _create(store, good)
    await _create(store, bad, snapshot=b"BAD" * 4_000)
    await store.aclose()
    overflow = _content(path).index(b"BAD" * 1_300) // 4096 * 4096
    _overwrite(path, overflow, b"\xff" * 4)  # where an overflow page has the number of the next
    store = await SQLiteStore.open(path)
    try:
        with pytest.raises(StoreCorrupt, match="damaged"):
            await store.claim(bad, owner="node-2")
        assert (await store.claim(good, owner="node-2")).snapshot == b"one"
        await store.save(good, epoch=2, version=2, snapshot=b"two", ttl=60.0)
    finally:
        await store.aclose()


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="not a regular file"):
        await SQLiteStore.open(tmp_path)


async def test_a_pipe_is_refused_without_waiting_for_somebody_to_write(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreUnavailable, match="not a regular file"):
        await SQLiteStore.open(tmp_path / "pipe")


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist; create it first"):
        await SQLiteStore.open(tmp_path / "missing" / "sessions.db")
    assert os.listdir(tmp_path) == []


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.touch()
    store = await SQLiteStore.open(path)
    await store.ping()
    await store.aclose()


async def test_a_file_that_may_not_be_written_is_refused() -> None:
    with _as_nobody() as directory:
        path = directory / "sessions.db"
        store = await SQLiteStore.open(path)
        await store.aclose()
        os.chmod(path, 0o444)
        with pytest.raises(StoreUnavailable, match=r"read-only|cannot be opened") as caught:
            await SQLiteStore.open(path)
        assert str(path) in str(caught.value)
        os.chmod(path, 0o000)
        with pytest.raises(StoreUnavailable, match="Permission denied"):
            await SQLiteStore.open(path)


async def test_a_directory_that_may_not_be_written_is_refused() -> None:
    with _as_nobody() as directory:
        os.chmod(directory, 0o555)
        with pytest.raises(StoreUnavailable, match="cannot be"):
            await SQLiteStore.open(directory / "sessions.db")
        os.chmod(directory, 0o755)


async def test_a_file_that_is_locked_at_opening_is_unavailable(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            await SQLiteStore.open(path, busy_timeout=0.05)
        connection.execute("ROLLBACK")


async def _create(store: SQLiteStore, address: Address, *, snapshot: bytes = b"one") -> None:
    await store.create(address, tenant="acme", owner="node-1", snapshot=snapshot, ttl=60.0)


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _overwrite(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


@contextmanager
def _left_alone(directory: Path, *, but_for: str | None = None) -> Generator[None]:
    before = {entry.name: entry.read_bytes() for entry in directory.iterdir() if entry.is_file()}
    yield
    after = {
        entry.name: entry.read_bytes() for entry in directory.iterdir() if entry.is_file() and entry.name != but_for
    }
    assert after == before


@contextmanager
def _as_nobody() -> Generator[Path]:
    """A directory of a user who is not root, as that user: root may write what it likes."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="understudy-") as directory:
        if root:
            os.chown(directory, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(directory)
        finally:
            if root:
                os.seteuid(0)
