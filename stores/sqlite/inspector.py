"""`SQLiteInspector`: what is in a file, without changing it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ..inspection import Layout
from . import database_file

__all__ = ["SQLiteInspector"]

_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs")
_FLEETING = ("tmpfs", "ramfs")
_MOUNTS = Path("/proc/self/mounts")
LEAST_ROOM = 256 * 2**20
"""Bytes that should be free on the disk."""

_PARTS = ("records", "streams", "events", "event_totals")


class SQLiteInspector:
    """An `Inspector` of the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def look(self) -> Layout:
        """See `Inspector.look`."""
        return await asyncio.to_thread(self._look)

    async def sizes(self) -> Mapping[str, int]:
        """See `Inspector.sizes`."""
        return await asyncio.to_thread(self._sizes)

    async def aclose(self) -> None:
        """See `Inspector.aclose`."""

    def _look(self) -> Layout:
        version = database_file.inspect(self._path)
        newest = database_file.SCHEMA_VERSION
        steps = [] if version == newest else _one_line(database_file.script(version or 0))
        return Layout(
            f"SQLite file {self._path}",
            version,
            newest,
            () if version is None else tuple(f"table {name}" for name in _PARTS[: 1 if version < 2 else None]),
            tuple(([] if version else [f"create {self._path}"]) + steps),
            tuple(self._warnings()),
        )

    def _warnings(self) -> list[str]:
        directory = self._path.absolute().parent
        said: list[str] = []
        kind = _file_system(directory)
        if kind in _REMOTE:
            said.append(f"{directory} is on a file system of another machine ({kind}), where locks of SQLite do not "
                        "hold: several processes may damage the file; use a local disk")  # fmt: skip
        elif kind in _FLEETING:
            said.append(f"{directory} is in memory ({kind}): sessions are lost when the machine restarts; use a disk")
        free = shutil.disk_usage(directory).free
        if free < LEAST_ROOM:
            said.append(f"{directory} has {free // 2**20} MiB free: when it is full no session is saved; make room")
        return said

    def _sizes(self) -> dict[str, int]:
        version = database_file.inspect(self._path)
        if version is None:
            return {}
        found = {"stored_bytes": sum(file.stat().st_size for file in self._files() if file.exists())}
        try:
            with closing(database_file.connect(self._path, busy_timeout=5.0, query_only=True)) as connection:
                found["snapshot_bytes"] = _number(connection, "SELECT total(length(snapshot)) FROM records")
                if version > 1:
                    found["streams"] = _number(connection, "SELECT count(*) FROM streams")
                    found["events"] = _number(connection, "SELECT count(*) FROM events")
                    found["event_bytes"] = _number(connection, "SELECT total(bytes) FROM streams")
        except sqlite3.Error as error:
            raise database_file.explain(self._path, error, may_be_written=False) from error
        return found

    def _files(self) -> list[Path]:
        return [self._path, Path(f"{self._path}-wal")]


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _one_line(statements: list[str]) -> list[str]:
    return [" ".join(statement.split()) for statement in statements]


def _file_system(directory: Path) -> str:
    """The kind of the file system that holds `directory`; empty where that cannot be told."""
    try:
        lines = _MOUNTS.read_text().splitlines()
        place = os.fsencode(directory.resolve())
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        _, point, of, *_ = line.split(" ")
        mounted = point.encode().decode("unicode_escape").encode("latin-1")
        inside = place == mounted or place.startswith(mounted.rstrip(b"/") + b"/")
        if inside and len(mounted) >= best:
            best, kind = len(mounted), of
    return kind
