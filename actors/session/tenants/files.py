"""`TenantFiles`: `tenant.files`, and `BlockingFiles`, the same for sync tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from .errors import FilesError, NotOffered
from .file_work import FileMode, FileWork, Path, failing
from .jail import FileEntry
from .running import helpers_for

if TYPE_CHECKING:
    from ..tenant import TenantContext
    from .folders import TenantFolders

__all__ = ["BlockingFiles", "TenantFile", "TenantFiles"]

T = TypeVar("T")


class TenantFiles:
    """The files of one tenant, all its principals together. Paths are relative, with / between names, and cannot
    leave the tenant's folder: whatever leads upwards, through a link or to a device is refused, and so is a name that
    somebody else may read as another.

    Work is done in threads, so that the event loop goes on; in a sync tool use `blocking`. All methods raise
    `PathRefused`, `FileMissing`, `QuotaExceeded`, `FilesUnavailable` or `FilesBusy` where they must, all `FilesError`s,
    and `WrongTenant` in another party's call.
    """

    __slots__ = ("_tenant",)

    def __init__(self, tenant: TenantContext) -> None:
        self._tenant = tenant

    @property
    def blocking(self) -> BlockingFiles:
        """The same for sync tools, which run in threads of their own."""
        return BlockingFiles(self._tenant)

    async def read(self, path: Path) -> bytes:
        """All of a file, up to 64 MiB (`Files.max_read`)."""
        return await self._run(lambda work: work.read(path))

    async def read_text(self, path: Path) -> str:
        """All of a file of UTF-8."""
        return _text(await self.read(path))

    async def write(self, path: Path, data: bytes | str) -> None:
        """Have `data`, and nothing else, in a file; text as UTF-8. Its folders are made. All of it is there,
        durably, or the file is as it was; cancelled, either."""
        await self._run(lambda work: work.write(path, data))

    async def append(self, path: Path, data: bytes | str) -> None:
        """Add `data` at a file's end; it is made where there is none. A crash may leave a part of it."""
        await self._run(lambda work: work.append(path, data))

    async def delete(self, path: Path, *, missing_ok: bool = False) -> bool:
        """Remove a file or an empty folder; whether there was one."""
        return await self._run(lambda work: work.delete(path, missing_ok=missing_ok))

    async def exists(self, path: Path) -> bool:
        """Whether there is a file or a folder at `path`."""
        return await self._run(lambda work: work.exists(path))

    async def status(self, path: Path) -> FileEntry:
        """Whether it is a folder, its size, and when it was changed."""
        return await self._run(lambda work: work.status(path))

    async def list(self, path: Path = "") -> list[FileEntry]:
        """What is in a folder, by name; at most 10,000 entries. Without `path`: in the tenant's own."""
        return await self._run(lambda work: work.list(path))

    async def move(self, source: Path, target: Path, *, replace: bool = False) -> None:
        """Give a file or a folder another path; with `replace`, also that of another file, which is gone then."""
        await self._run(lambda work: work.move(source, target, replace=replace))

    @asynccontextmanager
    async def open(self, path: Path, mode: FileMode = "r") -> AsyncGenerator[TenantFile]:
        """A file of bytes to be read ("r"), written anew ("w") or added to ("a"), in pieces.

        What is written anew takes the old file's place when the block ends without an error, and not otherwise.
        """
        folders, tenant = _folders(self._tenant), self._tenant.tenant
        opening = folders.work(tenant).open(path, mode)
        # Cancelled here or while it is left, nobody has it any more, and Python closes it: what was begun is given up.
        file = await folders.run(tenant, opening.__enter__)
        try:
            yield TenantFile(self._tenant, file)
        except BaseException as error:
            await folders.run(tenant, partial(_leave, opening, error))
            raise
        await folders.run(tenant, partial(opening.__exit__, None, None, None))

    async def _run(self, work: Callable[[FileWork], T]) -> T:
        folders, tenant = _folders(self._tenant), self._tenant.tenant
        files = folders.work(tenant)
        return await folders.run(tenant, lambda: work(files))

    def __repr__(self) -> str:
        return "<tenant.files>"


class TenantFile:
    """An open file of a tenant's. Its methods run in threads."""

    __slots__ = ("_file", "_tenant")

    def __init__(self, tenant: TenantContext, file: BinaryIO) -> None:
        self._tenant = tenant
        self._file = file

    async def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; without it all that is left. Empty at the end."""
        return await self._run(lambda: self._file.read(size))

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`."""
        await self._run(lambda: self._file.write(data))

    async def seek(self, position: int) -> None:
        """Go to the byte `position` of a file that is read."""
        await self._run(lambda: self._file.seek(position))

    async def _run(self, work: Callable[[], T]) -> T:
        def run() -> T:
            with failing():
                return work()

        return await _folders(self._tenant).run(self._tenant.tenant, run)


class BlockingFiles:
    """`tenant.files` for sync tools: the same, in the thread that asks, without a deadline of its own."""

    __slots__ = ("_tenant",)

    def __init__(self, tenant: TenantContext) -> None:
        self._tenant = tenant

    @property
    def _work(self) -> FileWork:
        return _folders(self._tenant).work(self._tenant.tenant)

    def read(self, path: Path) -> bytes:
        """As `TenantFiles.read`."""
        return self._work.read(path)

    def read_text(self, path: Path) -> str:
        """As `TenantFiles.read_text`."""
        return _text(self._work.read(path))

    def write(self, path: Path, data: bytes | str) -> None:
        """As `TenantFiles.write`."""
        self._work.write(path, data)

    def append(self, path: Path, data: bytes | str) -> None:
        """As `TenantFiles.append`."""
        self._work.append(path, data)

    def delete(self, path: Path, *, missing_ok: bool = False) -> bool:
        """As `TenantFiles.delete`."""
        return self._work.delete(path, missing_ok=missing_ok)

    def exists(self, path: Path) -> bool:
        """As `TenantFiles.exists`."""
        return self._work.exists(path)

    def status(self, path: Path) -> FileEntry:
        """As `TenantFiles.status`."""
        return self._work.status(path)

    def list(self, path: Path = "") -> list[FileEntry]:
        """As `TenantFiles.list`."""
        return self._work.list(path)

    def move(self, source: Path, target: Path, *, replace: bool = False) -> None:
        """As `TenantFiles.move`."""
        self._work.move(source, target, replace=replace)

    def open(self, path: Path, mode: FileMode = "r") -> AbstractContextManager[BinaryIO]:
        """As `TenantFiles.open`, with a plain binary file."""
        return self._work.open(path, mode)


def _folders(tenant: TenantContext) -> TenantFolders:
    folders = helpers_for(tenant).files
    if folders is None:
        raise NotOffered("files", 'a folder, `Runtime(..., files="dir")`')
    return folders


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FilesError(f"the file is not UTF-8: byte {error.start} does not fit; read it as bytes") from None


def _leave(opening: AbstractContextManager[BinaryIO], error: BaseException) -> None:
    with suppress(BaseException):
        opening.__exit__(type(error), error, error.__traceback__)
