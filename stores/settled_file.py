"""`read_settled`: a file that its operator changes while it is in use, read when he is not in the middle of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .errors import UnderstudyError

__all__ = ["FileUnsettled", "Stamp", "read_settled", "stamp_of"]

SETTLED: Final = 0.1
"""Seconds after which a file is taken for whole: an editor empties it first and writes it then, and whoever read what
is there in between would find less than there is. By then two writes have two times, too."""
SETTLING: Final = 10
"""Times that a file may change while it is read."""

Stamp = tuple[int, ...]
"""Two are equal if nobody has written in between."""


class FileUnsettled(UnderstudyError):
    """Somebody kept writing to the file while it was read."""


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file does. With the time of the last change to the inode: tools that copy a file may set the
    other time back to what it was."""
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def read_settled(
    path: Path, largest: int, check: Callable[[os.stat_result], None] | None = None
) -> tuple[Stamp, bytes]:
    """The file's stamp and its first `largest` bytes, once nobody has written to it for a moment. Blocks, for a second
    and what reading takes at most.

    `check` is called with the open file's status before it is read, and raises what it likes.

    Raises:
        OSError: It cannot be read.
        FileUnsettled: Somebody keeps writing to it.
    """
    for _ in range(SETTLING):
        with path.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if check is not None:
                check(status)
            raw = opened.read(largest)
        stamp = stamp_of(status)
        # The later of the two: what was copied into place a moment ago may have an old time of writing.
        if time.time() - max(status.st_mtime, status.st_ctime) >= SETTLED:
            return stamp, raw
        time.sleep(SETTLED)
        if stamp_of(path.stat()) == stamp:
            return stamp, raw
    raise FileUnsettled("it keeps changing while it is read; write a new one and move it into its place")
