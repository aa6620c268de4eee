"""`TenantFiles`: `tenant.files`, and `TenantFolders`, where those of all tenants are."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Self, TypeVar

from .errors import FilesBusy, FilesError, FilesUnavailable, NotOffered
from .file_quota import FileQuota
from .file_work import FileMode, FileWork, Path, failing
from .jail import FileEntry, Jail
from .names import folder_name
from .running import helpers_for

if TYPE_CHECKING:
    from ..tenant import TenantContext

__all__ = ["BlockingFiles", "Files", "TenantFile", "TenantFiles", "TenantFolders"]

T = TypeVar("T")

THREADS: Final = 16
THREADS_OF_ONE: Final = 4
"""Of one tenant, so that four with a slow disk do not take all."""
WAITING: Final = 256
"""Operations of one tenant that may wait."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the tenants' files are, and how much each may have. In a cluster all nodes must see the same folder (a
    network file system), or a tenant's files are where they were written."""

    folder: str | os.PathLike[str]
    """Made if it is not there. Each tenant has one in it, named by a hash of its id."""
    max_bytes: int | None = None
    """Of one tenant; None: no limit."""
    max_files: int | None = None
    """Of one tenant, folders included; None: no limit."""
    max_read: int = 64 * 2**20
    """Bytes that `read` takes into memory."""
    timeout: float = 30.0
    """Seconds for one operation."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: A number is not above 0.
        """
        for name in ("max_bytes", "max_files", "max_read", "timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} of Files is {value!r}; it must be greater than 0")


class TenantFolders:
    """The files of all tenants, as one node sees them. Used as an async context manager."""

    def __init__(self, options: Files) -> None:
        self._options = options
        self._root = FilePath(options.folder).absolute()
        self._quota = FileQuota(options.max_bytes, options.max_files)
        self._threads: ThreadPoolExecutor | None = None
        self._queues: dict[str, _Queue] = {}
        self._operations = self._refused = 0

    async def __aenter__(self) -> Self:
        """
        Raises:
            FilesError: The folder cannot be made, or used.
        """
        self._root = self._checked_root()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="understudy-files")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    def _checked_root(self) -> FilePath:
        if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
            raise FilesError("tenant.files needs openat(2) and O_NOFOLLOW, which this system does not have")
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root = self._root.resolve(strict=True)
            status = root.stat()
        except OSError as error:
            raise FilesError(f"files: the folder {str(self._root)!r} cannot be used: {error.strerror}") from error
        if status.st_mode & stat.S_IWOTH:
            raise FilesError(
                f"files: anybody may write in {str(root)!r}, and so put one tenant's folder in another's place: "
                "chmod o-w"
            )
        if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
            raise FilesError(f"files: this process may not write in {str(root)!r}")
        return root

    def work(self, tenant: str) -> FileWork:
        """What blocks."""
        return FileWork(tenant, Jail(self._root, folder_name(tenant)), self._quota, self._options.max_read)

    async def run(self, tenant: str, work: Callable[[], T]) -> T:
        """Run `work` in a thread. At most 4 of one tenant at once; the others wait, up to 256.

        Cancelled, or out of time, it leaves a thread that ends by itself; what it changes may be changed or not.

        Raises:
            FilesBusy: Too many wait.
            FilesUnavailable: It took longer than `timeout`.
            Whatever `work` raises.
        """
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = _Queue()
        if queue.users >= THREADS_OF_ONE + WAITING:
            self._refused += 1
            raise FilesBusy(f"{WAITING} file operations of this tenant wait already; await some before you start more")
        queue.users += 1
        try:
            async with asyncio.timeout(self._options.timeout):
                await queue.places.acquire()
                return await asyncio.wrap_future(self._submit(tenant, queue, work))
        except TimeoutError:
            raise FilesUnavailable(f"the file system did not answer within {self._options.timeout:g} s") from None
        finally:
            queue.users -= 1
            self._drop_if_idle(tenant, queue)

    def _submit(self, tenant: str, queue: _Queue, work: Callable[[], T]) -> Future[T]:
        loop = asyncio.get_running_loop()
        queue.at_work += 1
        try:
            if self._threads is None:
                raise FilesUnavailable("the runtime has stopped")
            running = self._threads.submit(work)
        except BaseException:
            self._ended(tenant, queue)
            raise
        self._operations += 1

        def over(_: object) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._ended, tenant, queue)

        # Its place is taken until the thread has ended, though nobody may wait for it any more.
        running.add_done_callback(over)
        return running

    def _ended(self, tenant: str, queue: _Queue) -> None:
        queue.at_work -= 1
        queue.places.release()
        self._drop_if_idle(tenant, queue)

    def _drop_if_idle(self, tenant: str, queue: _Queue) -> None:
        if not queue.users and not queue.at_work and self._queues.get(tenant) is queue:
            del self._queues[tenant]

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return {
            "operations_total": self._operations,
            "refused_total": self._refused,
            "waiting_or_running": sum(queue.users for queue in self._queues.values()),
        }


class _Queue:
    __slots__ = ("at_work", "places", "users")

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(THREADS_OF_ONE)
        self.users = 0
        self.at_work = 0


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
