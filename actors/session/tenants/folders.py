"""`TenantFolders`: where the files of all tenants are, and the threads that work on them; `Files` says how."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as FilePath
from types import TracebackType
from typing import Final, Self, TypeVar

from .errors import FilesBusy, FilesError, FilesUnavailable
from .file_quota import FileQuota
from .file_work import FileWork
from .jail import Jail
from .names import folder_name

__all__ = ["Files", "TenantFolders"]

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
