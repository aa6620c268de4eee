"""`Jail`: a folder that paths cannot leave, whatever is put into it while they are followed."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from .errors import FileMissing, FilesError, PathRefused, QuotaExceeded
from .names import DEEPEST, OWN_PREFIX, checked_path
from .refused_paths import shown, told

__all__ = ["MOST_LISTED", "FileEntry", "Jail"]

MOST_LISTED: Final = 10_000
"""Entries of one folder that can be listed."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What is opened may have become a pipe since it was looked at: without O_NONBLOCK that would hang.
_PLAIN: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ATTEMPTS: Final = 64
"""How often a file may be another one when it is open, as its tenant's other calls write it."""


class FileEntry(NamedTuple):
    """A file or folder as `list` tells it."""

    name: str
    is_folder: bool
    size: int
    """Bytes; 0 for a folder."""
    modified: float
    """Unix time in seconds."""


class Jail:
    """The folder of one tenant. All methods block, and may be called from any thread.

    Each name of a path is opened by itself, below the open folder before it, and never through a symbolic link
    (openat(2) with O_NOFOLLOW, which comes to what openat2(2) calls RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS). So a link
    that appears while a path is followed is refused as one that was there before.
    """

    def __init__(self, root: Path, name: str) -> None:
        """`name` in `root`, which is the operator's and trusted; made when something is first written."""
        self._root = root
        self._name = name
        self.grow: Callable[[int], None] = _unbounded
        """Called with 1 before a folder is made, and with -1 if somebody else has made it. May raise QuotaExceeded."""

    @contextmanager
    def _top(self, *, make: bool) -> Generator[int]:
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(self._name, 0o700, dir_fd=root)
            top = os.open(self._name, _FOLDER, dir_fd=root)
        finally:
            os.close(root)
        try:
            yield top
        finally:
            os.close(top)

    @contextmanager
    def folder(self, names: tuple[str, ...], path: object, *, make: bool = False) -> Generator[int]:
        """The open folder that `names` lead to; with `make`, made where it is missing.

        Raises:
            FileMissing, PathRefused, FilesError, FilesUnavailable: There is none; a name is a link, or no folder.
        """
        with told(path), self._top(make=make) as top:
            here = os.dup(top)
            try:
                for name in names:
                    try:
                        below = os.open(name, _FOLDER, dir_fd=here)
                    except FileNotFoundError:
                        if not make:
                            raise
                        self._make(here, name)
                        below = os.open(name, _FOLDER, dir_fd=here)
                    os.close(here)
                    here = below
                yield here
            finally:
                os.close(here)

    def _make(self, folder: int, name: str) -> None:
        self.grow(1)
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            self.grow(-1)
        except BaseException:
            self.grow(-1)
            raise

    @contextmanager
    def parent(self, path: str | os.PathLike[str], *, make: bool = False) -> Generator[tuple[int, str]]:
        """The open folder of the file `path`, and its name there. Raises as `folder`."""
        *names, name = checked_path(path)
        with self.folder(tuple(names), path, make=make) as folder:
            yield folder, name

    def open(self, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
        """A descriptor of the regular file at `path`. The caller closes it.

        Raises:
            FileMissing: There is none.
            PathRefused: It is a link, or no regular file; or as `checked_path` says.
            FilesUnavailable: The file system failed.
        """
        with self.parent(path) as (folder, name):
            for _ in range(_ATTEMPTS):
                opened = self._open_there(folder, name, path, flags)
                if opened is not None:
                    return opened
        raise PathRefused(os.fspath(path), "it became another file each time that it was opened")

    def _open_there(self, folder: int, name: str, path: str | os.PathLike[str], flags: int) -> int | None:
        """None: another file has been put in its place meanwhile, as whoever writes the file does."""
        before = _regular(folder, name, path)
        opened = os.open(name, flags | _PLAIN, dir_fd=folder)
        try:
            now = os.fstat(opened)
            if not stat.S_ISREG(now.st_mode):
                raise PathRefused(os.fspath(path), "it became something else while it was opened")
            same = (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino)
            if same and flags & os.O_ACCMODE != os.O_RDONLY and now.st_nlink != 1:
                raise PathRefused(os.fspath(path), "it has another name too, whose file would change with it")
        except BaseException:
            os.close(opened)
            raise
        if not same:
            os.close(opened)
            return None
        return opened

    def begin(self, path: str | os.PathLike[str]) -> tuple[int, str]:
        """A descriptor of an empty file that `finish` puts in the place of `path`, and its name until then.

        The folders on the way are made. Raises as `open`.
        """
        with self.parent(path, make=True) as (folder, name):
            if _status(folder, name) is not None:
                _regular(folder, name, path)
            temporary = f"{OWN_PREFIX}{secrets.token_hex(8)}"
            opened = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=folder)
            return opened, temporary

    def finish(self, path: str | os.PathLike[str], temporary: str, opened: int) -> None:
        """Put what was written there in place, at once and for good: a reader sees the old file or the new one.

        Raises:
            FilesUnavailable: The file system failed; the old file may be the one that is there.
        """
        with self.parent(path) as (folder, name):
            mine = os.fstat(opened)
            found = _status(folder, temporary)
            if found is None or (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
                raise FilesError(
                    f"the folder of {shown(path)} was moved while the file was written; nothing was changed"
                )
            if _status(folder, name) is not None:
                _regular(folder, name, path)
            os.fsync(opened)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def give_up(self, path: str | os.PathLike[str], temporary: str) -> None:
        """Remove what `begin` made. Never raises."""
        with suppress(FilesError, OSError), self.parent(path) as (folder, _):
            os.unlink(temporary, dir_fd=folder)

    def create(self, path: str | os.PathLike[str]) -> None:
        """Have an empty file at `path`, unless there is one. Raises as `open`."""
        with self.parent(path, make=True) as (folder, name), suppress(FileExistsError):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=folder))

    def status(self, path: str | os.PathLike[str]) -> FileEntry | None:
        """What is at `path`; None if there is nothing, or nothing that is a file or a folder of the tenant's."""
        try:
            with self.parent(path) as (folder, name):
                return _entry(folder, name)
        except FileMissing:
            return None

    def list(self, path: str | os.PathLike[str] = "") -> list[FileEntry]:
        """The files and folders in the folder `path`, by name. Links, devices and the like are left out.

        Raises:
            FileMissing: There is no such folder (the tenant's own is empty until something is written).
            FilesError: It has more than 10,000 entries, or is a file.
            PathRefused, FilesUnavailable: As `open`.
        """
        names = checked_path(path, folder=True)
        try:
            with self.folder(names, path) as folder:
                found: list[FileEntry] = []
                for name in _names(folder):
                    if (entry := _entry(folder, name)) is not None:
                        found.append(entry)
                    if len(found) > MOST_LISTED:
                        raise FilesError(f"{shown(path)} has more than {MOST_LISTED} entries; use more folders")
        except FileMissing:
            if names:
                raise
            return []
        return sorted(found)

    def delete(self, path: str | os.PathLike[str]) -> int:
        """Remove a file or an empty folder; the bytes that its file had.

        Raises:
            FileMissing: There is none.
            FilesError: A folder that is not empty.
            PathRefused, FilesUnavailable: As `open`; a link is removed by nobody.
        """
        with self.parent(path) as (folder, name):
            status = _status(folder, name)
            if status is None:
                raise FileMissing(f"there is no file {shown(path)}")
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=folder)
                return 0
            _regular(folder, name, path)
            os.unlink(name, dir_fd=folder)
            return status.st_size

    def move(self, source: str | os.PathLike[str], target: str | os.PathLike[str], *, replace: bool) -> int:
        """Give a file or folder another path; the bytes of the file that it replaced, or -1 where it replaced none.

        Raises:
            FileMissing: There is no `source`.
            FilesError: There is a `target` and it may not be replaced, or the folder would be inside itself, or what is
                in it deeper than a path can be.
            PathRefused, FilesUnavailable: As `open`.
        """
        deeper = len(checked_path(target)) - len(checked_path(source))
        with self.parent(source) as (folder, name):
            status = _status(folder, name)
            if status is None:
                raise FileMissing(f"there is no file {shown(source)}")
            if not stat.S_ISDIR(status.st_mode):
                _regular(folder, name, source)
            elif deeper > 0 and _is_deep(folder, name, DEEPEST - len(checked_path(target))):
                # Nobody could reach it there, nor delete it.
                raise FilesError(f"what is in {shown(source)} would be deeper than {DEEPEST} folders")
            with self.parent(target, make=True) as (other, other_name):
                there = _status(other, other_name)
                if there is None:
                    os.rename(name, other_name, src_dir_fd=folder, dst_dir_fd=other)
                    return -1
                if not replace or stat.S_ISDIR(there.st_mode) or stat.S_ISDIR(status.st_mode):
                    raise FilesError(f"there is {shown(target)} already; delete it, or replace a file by a file")
                _regular(other, other_name, target)
                os.replace(name, other_name, src_dir_fd=folder, dst_dir_fd=other)
                return there.st_size

    def usage(self, *, most: int, stale: float) -> tuple[int, int]:
        """Bytes and number of all files, and of folders too, as those take room as well. Files that were begun before
        `stale` (Unix time) and never finished are removed.

        Raises:
            QuotaExceeded: There are more than `most`: counting further would not end.
            FilesUnavailable: The file system failed.
        """
        size = count = 0
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            names = waiting.pop()
            with suppress(FileMissing, PathRefused), self.folder(names, "/".join(names)) as folder:
                for name in _names(folder):
                    status = _status(folder, name)
                    if status is None:
                        continue
                    if name.startswith(OWN_PREFIX) and status.st_mtime < stale:
                        with suppress(OSError):
                            os.unlink(name, dir_fd=folder)
                        continue
                    count += 1
                    if count > most:
                        raise QuotaExceeded(f"there are more than {most} files and folders already")
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append((*names, name))
                    else:
                        size += status.st_size
        return size, count


def _unbounded(folders: int) -> None:
    """No quota is set."""


def _is_deep(folder: int, name: str, most: int) -> bool:
    """Whether anything is more than `most` levels below the folder `name`."""
    below = os.open(name, _FOLDER, dir_fd=folder)
    try:
        for each in _names(below):
            status = _status(below, each)
            if most <= 0 or (status is not None and stat.S_ISDIR(status.st_mode) and _is_deep(below, each, most - 1)):
                return True
        return False
    finally:
        os.close(below)


def _names(folder: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _entry(folder: int, name: str) -> FileEntry | None:
    status = _status(folder, name)
    if status is None or name.startswith(OWN_PREFIX):
        return None
    if stat.S_ISDIR(status.st_mode):
        return FileEntry(name, True, 0, status.st_mtime)
    return FileEntry(name, False, status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None


def _regular(folder: int, name: str, path: str | os.PathLike[str]) -> os.stat_result:
    status = _status(folder, name)
    if status is None:
        raise FileMissing(f"there is no file {shown(path)}")
    if stat.S_ISLNK(status.st_mode):
        raise PathRefused(os.fspath(path), "it is a symbolic link")
    if stat.S_ISDIR(status.st_mode):
        raise FilesError(f"{shown(path)} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise PathRefused(os.fspath(path), "it is a device, a pipe or a socket")
    return status
