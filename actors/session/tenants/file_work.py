"""`FileWork`: what can be done with the files of one tenant, in the thread that asks."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO, Final, Literal, cast

from .errors import FileMissing, FilesError, FilesUnavailable
from .file_quota import FileQuota
from .jail import FileEntry, Jail

__all__ = ["FileMode", "FileWork", "Path", "failing"]

FileMode = Literal["r", "w", "a"]
Path = str | os.PathLike[str]

_CHUNK: Final = 2**18
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class FileWork:
    """Files of one tenant. All methods block; paths as `checked_path` takes them; errors as `Jail` raises them."""

    def __init__(self, tenant: str, jail: Jail, quota: FileQuota, max_read: int) -> None:
        self._tenant = tenant
        self._jail = jail
        self._quota = quota
        self._max_read = max_read
        jail.grow = self._grow

    def read(self, path: Path) -> bytes:
        """All of a file.

        Raises:
            FilesError: It is larger than is read at once.
        """
        with _closing(self._jail.open(path)) as file, failing():
            data = file.read(self._max_read + 1)
        if len(data) > self._max_read:
            raise FilesError(f"the file has more than {self._max_read} bytes; read it in pieces, with open()")
        return data

    def write(self, path: Path, data: bytes | str) -> None:
        """Have `data`, and nothing else, in a file: all of it, or the file stays as it was."""
        with failing(), self.writing(path) as file:
            file.write(_bytes(data))

    def append(self, path: Path, data: bytes | str) -> None:
        """Add `data` at a file's end; it is made where there is none. A crash may leave a part of it."""
        with failing(), self.appending(path) as file:
            file.write(_bytes(data))

    def open(self, path: Path, mode: FileMode) -> AbstractContextManager[BinaryIO]:
        """A file to be read ("r"), written anew ("w", in place when closed without an error) or added to ("a")."""
        match mode:
            case "r":
                return self.reading(path)
            case "w":
                return self.writing(path)
            case "a":
                return self.appending(path)
            case _:
                raise FilesError(f'mode {mode!r} is none; it is "r", "w" or "a", and files are of bytes')

    @contextmanager
    def reading(self, path: Path) -> Generator[BinaryIO]:
        with _closing(self._jail.open(path)) as file:
            yield cast("BinaryIO", io.BufferedReader(file))

    @contextmanager
    def writing(self, path: Path) -> Generator[BinaryIO]:
        before = self._jail.status(path)
        room = 0 if before is None else before.size
        is_new = int(before is None)
        self._quota.take(self._tenant, self._jail, 0, is_new)
        raw: _Counted | None = None
        done = False
        try:
            opened, temporary = self._jail.begin(path)
            try:
                raw = _Counted(opened, self, room, end=0)
                buffered = io.BufferedWriter(raw, _CHUNK)
                yield cast("BinaryIO", buffered)
                with failing():
                    buffered.flush()
                self._jail.finish(path, temporary, opened)
                done = True
            finally:
                if not done:
                    self._jail.give_up(path, temporary)
                if raw is not None:
                    raw.close()
                else:
                    os.close(opened)
        finally:
            taken = 0 if raw is None else raw.taken
            if done:
                # The room of the file that it replaced, where the new one did not need it.
                self._quota.give(self._tenant, 0 if raw is None else raw.free, 0)
            else:
                self._quota.give(self._tenant, taken, is_new)

    @contextmanager
    def appending(self, path: Path) -> Generator[BinaryIO]:
        try:
            opened = self._jail.open(path, os.O_WRONLY | os.O_APPEND)
        except FileMissing:
            self._quota.take(self._tenant, self._jail, 0, 1)
            self._jail.create(path)
            opened = self._jail.open(path, os.O_WRONLY | os.O_APPEND)
        raw = _Counted(opened, self, 0, end=None)
        try:
            buffered = io.BufferedWriter(raw, _CHUNK)
            yield cast("BinaryIO", buffered)
            with failing():
                buffered.flush()
                os.fsync(opened)
        finally:
            raw.close()

    def take(self, size: int) -> None:
        """Have room for `size` bytes more."""
        self._quota.take(self._tenant, self._jail, size, 0)

    def _grow(self, folders: int) -> None:
        if folders > 0:
            self._quota.take(self._tenant, self._jail, 0, folders)
        else:
            self._quota.give(self._tenant, 0, -folders)

    def delete(self, path: Path, *, missing_ok: bool = False) -> bool:
        """Remove a file or an empty folder; whether there was one, as with `missing_ok` there need not be."""
        try:
            size = self._jail.delete(path)
        except FileMissing:
            if missing_ok:
                return False
            raise
        self._quota.give(self._tenant, size, 1)
        return True

    def exists(self, path: Path) -> bool:
        """Whether there is a file or a folder of the tenant's at `path`."""
        return self._jail.status(path) is not None

    def status(self, path: Path) -> FileEntry:
        """What is at `path`."""
        found = self._jail.status(path)
        if found is None:
            raise FileMissing("there is no such file or folder")
        return found

    def list(self, path: Path = "") -> list[FileEntry]:
        """The files and folders in a folder, by name."""
        return self._jail.list(path)

    def move(self, source: Path, target: Path, *, replace: bool = False) -> None:
        """Give a file or a folder another path; with `replace`, also that of another file, which is gone then."""
        freed = self._jail.move(source, target, replace=replace)
        if freed >= 0:
            self._quota.give(self._tenant, freed, 1)


class _Counted(io.FileIO):
    """A file that asks for room before it grows. `free`: bytes that need not be asked for."""

    def __init__(self, opened: int, work: FileWork, free: int, *, end: int | None) -> None:
        """`end`: how long the file is; None: whatever is written goes to its end, wherever that is."""
        super().__init__(opened, "wb")
        self._work = work
        self._end = end
        self.free = free
        self.taken = 0

    def write(self, data: object, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = len(memoryview(cast("bytes", data)).cast("B"))
        if self._end is None:
            self._grow(size)
        else:
            # From where its writer has gone: what he has left out behind the end is a part of the file too.
            self._reach(self.tell() + size)
        return super().write(cast("bytes", data))

    def truncate(self, size: int | None = None, /) -> int:
        length = self.tell() if size is None else size
        if self._end is None:
            raise FilesError("a file that is added to cannot be cut; write it anew")
        self._reach(length)
        return super().truncate(length)

    def _reach(self, end: int) -> None:
        if self._end is not None and end > self._end:
            self._grow(end - self._end)
            self._end = end

    def _grow(self, size: int) -> None:
        needed = max(size - self.free, 0)
        if needed:
            self._work.take(needed)
            self.taken += needed
        self.free -= size - needed


@contextmanager
def _closing(opened: int) -> Generator[io.FileIO]:
    file = io.FileIO(opened, "rb")
    try:
        yield file
    finally:
        file.close()


@contextmanager
def failing() -> Generator[None]:
    """Say that the file system failed, without the paths that it names."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise FilesUnavailable(
            "the file system is full" if full else f"the file system failed: {os.strerror(error.errno or 0)}"
        ) from None


def _bytes(data: bytes | str) -> bytes:
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError:
            raise FilesError("the text holds a lone surrogate, which UTF-8 does not have") from None
    return data
