"""What `SQLiteStore` says to SQLite: one function an operation, run inside a transaction of `GroupCommit`.

Each judges and writes in one statement; a second one only finds out why the first matched nothing. So a refusal
leaves nothing behind, and its neighbours in the transaction are not disturbed. `now` and `expires` are seconds since
the Unix epoch.
"""

from __future__ import annotations

import sqlite3

from ..address import Address
from ..errors import RecordExists, RecordNotFound, StaleEpoch
from ..record import Record, RecordInfo
from .database_file import WRITE_NOTHING

__all__ = ["adopt", "claim", "create", "delete", "expire", "load", "page", "save", "touch", "write_nothing"]

_CREATE = """
    INSERT INTO records (kind, id, tenant, epoch, version, owner, created, updated, expires, snapshot)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (kind, id) DO UPDATE SET
        tenant = excluded.tenant, epoch = excluded.epoch, version = excluded.version, owner = excluded.owner,
        created = excluded.created, updated = excluded.updated, expires = excluded.expires,
        snapshot = excluded.snapshot
    WHERE records.expires <= excluded.created
"""
_ADOPT = _CREATE.replace(
    "records.expires <= excluded.created", "records.expires <= ? OR (records.epoch = ? AND records.version = ?)"
)
# one-writer: one statement both raises the epoch and returns the snapshot.
_CLAIM = """
    UPDATE records SET epoch = epoch + 1, owner = ? WHERE kind = ? AND id = ? AND expires > ?
    RETURNING tenant, epoch, version, owner, created, updated, expires, snapshot
"""
_LOAD = """
    SELECT tenant, epoch, version, owner, created, updated, expires, snapshot FROM records
    WHERE kind = ? AND id = ? AND expires > ?
"""
# one-writer: the epoch and the version are compared in the statement that writes.
_SAVE = """
    UPDATE records SET version = ?, snapshot = ?, updated = ?, expires = ?
    WHERE kind = ? AND id = ? AND epoch = ? AND version = ? AND expires > ?
"""
_TOUCH = "UPDATE records SET expires = ? WHERE kind = ? AND id = ? AND epoch = ? AND expires > ?"
_DELETE = "DELETE FROM records WHERE kind = ? AND id = ? AND (? IS NULL OR epoch = ?) AND expires > ?"
_WHY = "SELECT epoch, version FROM records WHERE kind = ? AND id = ? AND expires > ?"
_PAGE = """
    SELECT number, kind, id, tenant, epoch, version, owner, created, updated, expires FROM records
    WHERE number > ? AND expires > ? ORDER BY number LIMIT ?
"""
_PAGE_OF_TENANT = """
    SELECT number, kind, id, tenant, epoch, version, owner, created, updated, expires FROM records
    WHERE tenant = ? AND number > ? AND expires > ? ORDER BY number LIMIT ?
"""
_EXPIRE = "DELETE FROM records WHERE number IN (SELECT number FROM records WHERE expires <= ? LIMIT ?)"


def create(cursor: sqlite3.Cursor, record: Record) -> None:
    cursor.execute(_CREATE, _row(record))
    if cursor.rowcount != 1:
        raise RecordExists(record.address)


def adopt(cursor: sqlite3.Cursor, record: Record, over: tuple[int, int], now: float) -> None:
    cursor.execute(_ADOPT, (*_row(record), now, *over))
    if cursor.rowcount != 1 and _epoch_and_version(cursor, record.address, now) != (record.epoch, record.version):
        raise RecordExists(record.address)


def claim(cursor: sqlite3.Cursor, address: Address, owner: str, now: float) -> Record:
    row = cursor.execute(_CLAIM, (owner, *address, now)).fetchone()
    if row is None:
        raise RecordNotFound(address)
    return Record(address, *row)


def load(cursor: sqlite3.Cursor, address: Address, now: float) -> Record | None:
    row = cursor.execute(_LOAD, (*address, now)).fetchone()
    return None if row is None else Record(address, *row)


def save(
    cursor: sqlite3.Cursor, address: Address, epoch: int, version: int, snapshot: bytes, now: float, expires: float
) -> None:
    cursor.execute(_SAVE, (version, snapshot, now, expires, *address, epoch, version - 1, now))
    if cursor.rowcount == 1:
        return
    stored = _epoch_and_version(cursor, address, now)
    if stored is None:
        raise RecordNotFound(address)
    if stored != (epoch, version):
        raise StaleEpoch(address, held=epoch, stored=stored[0])


def touch(cursor: sqlite3.Cursor, address: Address, epoch: int, now: float, expires: float) -> None:
    cursor.execute(_TOUCH, (expires, *address, epoch, now))
    if cursor.rowcount == 1:
        return
    stored = _epoch_and_version(cursor, address, now)
    if stored is None:
        raise RecordNotFound(address)
    raise StaleEpoch(address, held=epoch, stored=stored[0])


def delete(cursor: sqlite3.Cursor, address: Address, epoch: int | None, now: float) -> bool:
    cursor.execute(_DELETE, (*address, epoch, epoch, now))
    if cursor.rowcount == 1:
        return True
    stored = _epoch_and_version(cursor, address, now)
    if stored is None or epoch is None:
        return False
    raise StaleEpoch(address, held=epoch, stored=stored[0])


def page(
    cursor: sqlite3.Cursor, tenant: str | None, after: int, now: float, limit: int
) -> list[tuple[int, RecordInfo]]:
    if tenant is None:
        cursor.execute(_PAGE, (after, now, limit))
    else:
        cursor.execute(_PAGE_OF_TENANT, (tenant, after, now, limit))
    return [(row[0], RecordInfo(Address(row[1], row[2]), *row[3:])) for row in cursor.fetchall()]


def expire(cursor: sqlite3.Cursor, now: float, limit: int) -> int:
    cursor.execute(_EXPIRE, (now, limit))
    return cursor.rowcount


def write_nothing(cursor: sqlite3.Cursor) -> None:
    """Write without changing anything, to learn whether the file can be written."""
    cursor.execute(WRITE_NOTHING)


def _row(record: Record) -> tuple[object, ...]:
    return (
        *record.address,
        record.tenant,
        record.epoch,
        record.version,
        record.owner,
        record.created,
        record.updated,
        record.expires,
        record.snapshot,
    )


def _epoch_and_version(cursor: sqlite3.Cursor, address: Address, now: float) -> tuple[int, int] | None:
    return cursor.execute(_WHY, (*address, now)).fetchone()
