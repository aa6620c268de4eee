"""The file under `SQLiteStore`: its schema and its stamp, what is refused, and SQLite's failures in plain words."""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ..errors import StoreCorrupt, StoreError, StoreUnavailable, StoreVersionError

__all__ = [
    "APPLICATION_ID",
    "SCHEMA_VERSION",
    "WRITE_NOTHING",
    "check_in_place",
    "connect",
    "explain",
    "identity",
    "inspect",
    "prepare",
    "script",
]

APPLICATION_ID = 0x55_53_54_59
"""`USTY`: what `PRAGMA application_id` says of a file of ours."""

SCHEMA_VERSION = 2
"""`PRAGMA user_version` of the schemas below. A file with a lower one is brought to it, with a higher one refused."""

WRITE_NOTHING = f"PRAGMA user_version = {SCHEMA_VERSION}"
"""Writes a page as it is. BEGIN IMMEDIATE alone succeeds on a file that cannot be written."""

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables; RETURNING came with 3.35."""

_SCHEMA = (
    """
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
    ) STRICT
    """,
    "CREATE UNIQUE INDEX records_by_address ON records (kind, id)",
    "CREATE INDEX records_by_tenant ON records (tenant)",
    "CREATE INDEX records_by_expiry ON records (expires)",
)

# IF NOT EXISTS: a process of version 1 that still runs may put its own number back into a file that was brought to 2.
_SECOND_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS streams (
        number INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        stream TEXT NOT NULL,
        head BLOB NOT NULL,
        last INTEGER NOT NULL,
        oldest INTEGER NOT NULL,
        writer TEXT NOT NULL,
        ended INTEGER NOT NULL,
        appended REAL NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE UNIQUE INDEX IF NOT EXISTS streams_by_address ON streams (kind, id, stream)",
    "CREATE INDEX IF NOT EXISTS streams_by_age ON streams (appended)",
    # With row ids, though the key is another: without them a row of more than a quarter of a page has pages of its own.
    """
    CREATE TABLE IF NOT EXISTS events (
        stream INTEGER NOT NULL,
        number INTEGER NOT NULL,
        event BLOB NOT NULL,
        PRIMARY KEY (stream, number)
    ) STRICT
    """,
    """
    CREATE TABLE IF NOT EXISTS event_totals (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        bytes INTEGER NOT NULL
    ) STRICT
    """,
    "INSERT OR IGNORE INTO event_totals VALUES (1, 0)",
)

_SINCE = {1: _SCHEMA, 2: _SECOND_SCHEMA}
"""What each version brought."""

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_SECOND_LOOK = 0.1
"""Seconds."""

# The primary result codes: the low byte of sqlite_errorcode.
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def prepare(path: Path, *, busy_timeout: float) -> None:
    """Make sure that `path` is a store of this version: check an existing file, create a missing one.

    A file that is refused is not written to. Blocks; call it in a thread.

    Raises:
        StoreVersionError: The file is of a newer understudy.
        StoreCorrupt: It is damaged, or not a store at all.
        StoreUnavailable: It cannot be opened or written, or is locked by another process.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreUnavailable(
            f"the SQLite store needs SQLite {'.'.join(map(str, OLDEST_SQLITE))} or later; "
            f"this Python brings {sqlite3.sqlite_version}",
            outcome_unknown=False,
        )
    inspect(path)
    try:
        with closing(connect(path, busy_timeout=busy_timeout)) as connection:
            _stamp(connection)
            _check_stamp(path, *_stamp_of(connection))
            connection.execute("PRAGMA journal_mode = WAL")
            # A file that cannot be written says so here, not at the first save.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(WRITE_NOTHING)
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise explain(path, error, may_be_written=False) from error


def connect(path: Path, *, busy_timeout: float, query_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode that may be used from any one thread at a time. `busy_timeout` in seconds.

    Raises:
        StoreUnavailable, StoreCorrupt: What SQLite says, in our words.
    """
    try:
        connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        try:
            # FULL and not NORMAL: in WAL mode NORMAL loses the last commits with the power.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA query_only = {int(query_only)}")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise explain(path, error, may_be_written=False) from error
    return connection


def explain(path: Path, error: sqlite3.Error, may_be_written: bool) -> StoreError:
    """SQLite's `error` on the file at `path` as an error of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _CORRUPT:
        return StoreCorrupt(f"{path} is damaged or not a SQLite database ({error}); restore it from a copy")
    if code in _BUSY:
        # Whoever is refused the lock has written nothing.
        return StoreUnavailable(f"{path} is locked by another process ({error})", outcome_unknown=False)
    reasons = {
        sqlite3.SQLITE_FULL: "has no room left: its disk is full",
        sqlite3.SQLITE_READONLY: "cannot be written: the file or its directory is read-only",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that it and its directory may be read and written",
        sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error",
        sqlite3.SQLITE_TOOBIG: "cannot hold a snapshot of this size",
    }
    reason = reasons.get(code, "does not work")
    return StoreUnavailable(f"{path} {reason} ({error})", outcome_unknown=may_be_written)


def inspect(path: Path) -> int | None:
    """The schema version of the store at `path`, which is not written to; None if there is no file, or an empty one.

    Raises:
        StoreVersionError, StoreCorrupt, StoreUnavailable: As `prepare`.
    """
    try:
        return _inspect(path)
    except StoreCorrupt:
        # Another process may have been in the middle of creating or closing it.
        time.sleep(_SECOND_LOOK)
        return _inspect(path)


def script(version: int) -> list[str]:
    """What brings a file of `version` to this one's; 0 is a new file."""
    steps = [statement for later in range(version + 1, SCHEMA_VERSION + 1) for statement in _SINCE[later]]
    return [*steps, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION}"]


def identity(path: Path) -> tuple[int, int]:
    """What tells this file from another one at the same path. For `check_in_place`."""
    status = path.stat()
    return status.st_dev, status.st_ino


def check_in_place(path: Path, opened: tuple[int, int]) -> None:
    """SQLite goes on writing to a file that somebody has removed, and all of it is lost.

    Raises:
        StoreUnavailable: `path` is no longer the file that was opened.
    """
    try:
        if identity(path) == opened:
            return
    except OSError:
        pass
    raise StoreUnavailable(
        f"{path} was removed or replaced while in use: what is written now will be lost; restart",
        outcome_unknown=False,
    )


def _stamp(connection: sqlite3.Connection) -> None:
    # A new file before WAL, so that the stamp is in the file itself: `prepare` reads it there without opening a
    # database that it may have to refuse. A file in WAL mode tells of a newer version by its log until that has moved.
    if not _is_behind(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been quicker.
        if _is_behind(connection):
            version = _stamp_of(connection)[1]
            for statement in script(version):
                connection.execute(statement)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_behind(connection: sqlite3.Connection) -> bool:
    application, version = _stamp_of(connection)
    return (application, version) == (0, 0) or (application == APPLICATION_ID and 0 < version < SCHEMA_VERSION)


def _stamp_of(connection: sqlite3.Connection) -> tuple[int, int]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return application, connection.execute("PRAGMA user_version").fetchone()[0]


def _inspect(path: Path) -> int | None:
    header, size = _header_of(path)
    if not header:
        return None
    version = _check_header(path, header, size)
    return _check_body(path) or version


def _header_of(path: Path) -> tuple[bytes, int]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreUnavailable(f"{path} is not a regular file; name a file for the store", outcome_unknown=False)
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        if path.parent.is_dir():
            return b"", 0
        raise StoreUnavailable(
            f"{path} cannot be created: the directory {path.parent} does not exist; create it first",
            outcome_unknown=False,
        ) from None
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be opened: {error.strerror}; name a file that this process may read and write",
            outcome_unknown=False,
        ) from None


def _check_header(path: Path, header: bytes, size: int) -> int:
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StoreCorrupt(f"{path} is not a SQLite database; it is left as it is, name another file")
    version, application = struct.unpack_from(">I4xI", header, 60)
    _check_stamp(path, application, version)
    # SQLite forgives a last page that was cut short, and reads zeros for its rest.
    page_bytes, pages = struct.unpack_from(">H10xI", header, 16)
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    if size < page_bytes * pages and not Path(f"{path}-wal").exists():
        raise StoreCorrupt(
            f"{path} is damaged: it has {size} of {page_bytes * pages} bytes; it is left as it is: restore a copy"
        )
    return version


def _check_stamp(path: Path, application: int, version: int) -> None:
    if application != APPLICATION_ID:
        raise StoreCorrupt(
            f"{path} is a SQLite database of something else (application_id {application:#x}, "
            f"not {APPLICATION_ID:#x}); it is left as it is, name another file"
        )
    if version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"{path} has schema version {version}, written by a newer understudy; this one reads up to "
            f"{SCHEMA_VERSION}; it is left as it is: upgrade, or name another file"
        )


def _check_body(path: Path) -> int | None:
    """The version, also where only the log tells it; None if nobody can judge at the moment."""
    if Path(f"{path}-journal").exists():
        return None  # a creation is under way or was cut off: SQLite must finish or undo it before anybody can judge
    # An ordinary connection makes -wal and -shm files, and moves a log into the file when it closes. An immutable one
    # does nothing of the kind, but sees no log either; where there is one, a read-only connection leaves both alone.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(os.fspath(path.absolute()))}?{mode}", uri=True)) as connection:
            application, version = _stamp_of(connection)
            _check_stamp(path, application, version)
            connection.execute("SELECT number FROM records ORDER BY number DESC LIMIT 1").fetchone()
            if version > 1:
                connection.execute("SELECT stream FROM events LIMIT 1").fetchone()
                connection.execute("SELECT number FROM streams, event_totals LIMIT 1").fetchone()
            return version
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (*_CORRUPT, sqlite3.SQLITE_ERROR):  # SQLITE_ERROR: no such table
            raise StoreCorrupt(f"{path} is damaged ({error}); it is left as it is: restore it from a copy") from error
        # Anything else will be met again, and explained, when the file is opened for writing.
        return None
