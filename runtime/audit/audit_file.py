"""`AuditFile`: lines at the end of a file that somebody else may move away."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

__all__ = ["AuditFile"]


class AuditFile:
    """A file that is opened anew when it has been moved or removed, as `logrotate` does without `copytruncate`.

    `close` may be called while another thread writes.
    """

    def __init__(self, path: Path | None) -> None:
        """`path` None: standard error."""
        self._path = path
        self._fd: int | None = None
        self._writing = threading.Lock()

    def write(self, lines: bytes) -> None:
        """Append `lines`, whole.

        Raises:
            OSError: They could not be written, or not all of them.
        """
        if self._path is None:
            sys.stderr.write(lines.decode())
            sys.stderr.flush()
            return
        with self._writing:
            self._follow(self._path)
            assert self._fd is not None
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def close(self) -> None:
        """Let go of the file, unless a write to it hangs: its number must not become another file's. Idempotent."""
        if self._writing.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._writing.release()

    def _let_go(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _follow(self, path: Path) -> None:
        if self._fd is not None:
            held = os.fstat(self._fd)
            try:
                there = path.stat()
            except FileNotFoundError:
                there = None
            if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
                self._let_go()
        if self._fd is None:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
