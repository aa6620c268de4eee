"""`SQLiteStore`: records in one SQLite file, for one machine."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..address import Address
from ..arguments import checked_limit, checked_text, checked_ttl, cursor_number
from ..event_log import EventLogBounds
from ..group_commit import GroupCommit
from ..record import Page, Record, RecordInfo
from . import database_file, statements
from .events import SQLiteEventLog

__all__ = ["SQLiteStore"]

_CURSOR = "sqlite-"


class SQLiteStore:
    """A `SessionStore` in one file: what it acknowledged survives kill -9 and, as far as the disk keeps its word,
    a power failure. Several processes on one machine may open the same file.

    All work is done in two threads, one that writes and one that reads; no method blocks the event loop. Writes of
    one moment share one commit. A cancelled call may still take effect.

    Made by `open`, on the event loop that uses it.
    """

    shared = False

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        writer: GroupCommit,
        reader: GroupCommit,
        identity: tuple[int, int],
        event_bounds: EventLogBounds,
    ) -> None:
        self._path = path
        self._clock = clock
        self._writer = writer
        self._reader = reader
        self._identity = identity
        self._events = SQLiteEventLog(clock, event_bounds, writer, reader)

    @property
    def events(self) -> SQLiteEventLog:
        """The event log in the same file; closed with the store."""
        return self._events

    @property
    def identity(self) -> str:
        """What tells this store from others: the file, whatever paths lead to it, and the machine that has it."""
        device, inode = self._identity
        return f"SQLite file {device:x}:{inode:x} of {socket.gethostname()}"

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        busy_timeout: float = 5.0,
        max_queued: int = 10_000,
        max_group: int = 1_000,
        event_bounds: EventLogBounds | None = None,
    ) -> SQLiteStore:
        """Open the store at `path`, or create it; its directory must exist.

        Args:
            clock: Seconds since the Unix epoch.
            busy_timeout: Seconds to wait for another process that holds the file's lock.
            max_queued: At this many waiting calls the next raises `StoreUnavailable`.
            max_group: Most calls in one commit.
            event_bounds: What `events` keeps; several processes on one file give the same.

        Raises:
            StoreVersionError: The file is of a newer understudy. It is left as it is.
            StoreCorrupt: It is damaged or not a store. It is left as it is.
            StoreUnavailable: It cannot be opened or written, or is locked by another process.
        """
        file = Path(path)
        writing, reading, identity = await asyncio.to_thread(_open, file, busy_timeout)
        bounds: dict[str, Any] = {"max_queued": max_queued, "max_group": max_group}
        explain = partial(database_file.explain, file)
        name = f"understudy {file.name}"
        # A commit into a file that was removed would be acknowledged and lost: worth a look, a microsecond each time.
        in_place = partial(database_file.check_in_place, file, identity)
        writer = GroupCommit(
            writing, name=f"{name} writer", begin="BEGIN IMMEDIATE", explain=explain, in_place=in_place, **bounds
        )
        reader = GroupCommit(reading, name=f"{name} reader", begin="BEGIN", explain=explain, **bounds)
        return cls(file, clock, writer, reader, identity, event_bounds or EventLogBounds())

    @property
    def path(self) -> Path:
        """The file, as it was given."""
        return self._path

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`."""
        now = self._clock()
        expires = now + checked_ttl(ttl)
        checked_text("tenant", tenant)
        checked_text("owner", owner)
        record = Record(address, tenant, 1, 1, owner, now, now, expires, snapshot)
        await self._writer.submit(statements.create, record)
        return record

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        """See `AdoptsRecords.adopt`."""
        await self._writer.submit(statements.adopt, record, over or (0, 0), self._clock())

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`."""
        return await self._writer.submit(statements.claim, address, checked_text("owner", owner), self._clock())

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        return await self._reader.submit(statements.load, address, self._clock())

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`."""
        now = self._clock()
        await self._writer.submit(statements.save, address, epoch, version, snapshot, now, now + checked_ttl(ttl))

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        now = self._clock()
        await self._writer.submit(statements.touch, address, epoch, now, now + checked_ttl(ttl))

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        return await self._writer.submit(statements.delete, address, epoch, self._clock())

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`. Oldest first."""
        after = cursor_number(cursor, _CURSOR)
        found = await self._reader.submit(statements.page, tenant, after, self._clock(), checked_limit(limit) + 1)
        records: tuple[RecordInfo, ...] = tuple(info for _, info in found[:limit])
        return Page(records, f"{_CURSOR}{found[limit - 1][0]:x}" if len(found) > limit else None)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`."""
        return await self._writer.submit(statements.expire, self._clock(), checked_limit(limit, most=None))

    async def ping(self) -> None:
        """See `SessionStore.ping`. Takes the write lock; after a failed write it also writes, to know whether the
        disk is well again. Finds a file that was removed or replaced."""
        await self._writer.submit(self._probe, not self._writer.healthy)

    async def aclose(self) -> None:
        """See `SessionStore.aclose`. Cancelling stops the wait, not the closing."""
        await self._writer.aclose()
        await self._reader.aclose()

    def stats(self) -> dict[str, float]:
        """`write_*` and `read_*`: calls, commits (transactions), failed ones, the largest group, seconds in SQLite,
        calls waiting."""
        writes = {f"write_{name}": value for name, value in self._writer.stats().items()}
        return writes | {f"read_{name}": value for name, value in self._reader.stats().items()}

    def _probe(self, cursor: sqlite3.Cursor, write: bool) -> None:
        database_file.check_in_place(self._path, self._identity)
        if write:
            statements.write_nothing(cursor)


def _open(path: Path, busy_timeout: float) -> tuple[sqlite3.Connection, sqlite3.Connection, tuple[int, int]]:
    database_file.prepare(path, busy_timeout=busy_timeout)
    writing = database_file.connect(path, busy_timeout=busy_timeout)
    try:
        reading = database_file.connect(path, busy_timeout=busy_timeout, query_only=True)
    except BaseException:
        writing.close()
        raise
    return writing, reading, database_file.identity(path)
