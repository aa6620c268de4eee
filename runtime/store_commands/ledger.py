"""`Ledger`: what a copy knows to be in its target, on disk, so that millions of records need no memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ...stores import Address
from ...stores.record import RecordInfo

__all__ = ["Known", "Ledger"]

_AT_ONCE = 500


class Known(NamedTuple):
    """A record of the target."""

    epoch: int
    version: int
    expires: float
    ours: bool
    """A copy of the same source has written it, and nobody has claimed it since."""

    @classmethod
    def of(cls, info: RecordInfo, owner: str) -> Known:
        """What `info` says, where copies are written with `owner`."""
        return cls(info.epoch, info.version, info.expires, info.owner == owner)


class Ledger:
    """A table in a temporary file. Made by `open`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._sql.execute(
            "CREATE TABLE known (kind TEXT, id TEXT, epoch INTEGER, version INTEGER, expires REAL, ours INTEGER,"
            " seen INTEGER, PRIMARY KEY (kind, id)) WITHOUT ROWID"
        )
        # One transaction for good: what does not fit into SQLite's cache goes to the file all the same.
        self._sql.execute("BEGIN")

    @classmethod
    @contextmanager
    def open(cls) -> Generator[Ledger]:
        """A new one, which is gone at the end."""
        with TemporaryDirectory(prefix="understudy-copy-") as directory:
            connection = sqlite3.connect(Path(directory) / "ledger", isolation_level=None)
            try:
                # It is worth nothing after a crash.
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                yield cls(connection)
            finally:
                connection.close()

    def clear(self) -> None:
        """Forget everything."""
        self._sql.execute("DELETE FROM known")

    def put(self, address: Address, known: Known, seen: int) -> None:
        """Note what is at `address`, and that the source had it in pass number `seen`."""
        self._sql.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?)", (*address, *known, seen))

    def forget(self, address: Address) -> None:
        """Nothing is at `address`."""
        self._sql.execute("DELETE FROM known WHERE kind = ? AND id = ?", address)

    def get(self, address: Address) -> Known | None:
        """What is at `address`."""
        row = self._sql.execute(
            "SELECT epoch, version, expires, ours FROM known WHERE kind = ? AND id = ?", address
        ).fetchone()
        return None if row is None else Known(row[0], row[1], row[2], bool(row[3]))

    def see(self, addresses: Iterable[Address], seen: int) -> None:
        """The source has these in pass number `seen`."""
        self._sql.executemany(
            "UPDATE known SET seen = ? WHERE kind = ? AND id = ?", ((seen, *address) for address in addresses)
        )

    def unseen(self, seen: int) -> Iterator[Sequence[tuple[Address, Known]]]:
        """What is ours and the source did not have in pass number `seen`, a few at a time. They may be forgotten
        meanwhile."""
        after = ("", "")
        while True:
            rows = self._sql.execute(
                "SELECT kind, id, epoch, version, expires FROM known WHERE (kind, id) > (?, ?) AND seen < ? AND ours"
                " ORDER BY kind, id LIMIT ?",
                (*after, seen, _AT_ONCE),
            ).fetchall()
            if not rows:
                return
            yield [(Address(row[0], row[1]), Known(row[2], row[3], row[4], True)) for row in rows]
            after = (rows[-1][0], rows[-1][1])
