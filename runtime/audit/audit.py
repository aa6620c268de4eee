"""The audit trail: who opened, called, was refused and ended, written down once, at the node where it happened."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from ...actors.foreign_errors import ends_the_task
from ...actors.task_owner import TaskOwner
from ..errors import ConfigurationError
from .audit_entry import AuditEntry
from .audit_file import AuditFile

__all__ = ["Audit", "AuditSink", "AuditTrail"]

logger = logging.getLogger(__name__)

AuditSink = Callable[[AuditEntry], Awaitable[object] | object]
"""Takes one entry after the other. A plain function runs on the event loop, so it must be quick."""

BATCH: Final = 500
"""Most entries written at once."""
PATIENCE: Final = 10.0
"""Seconds that a request waits for room, that a sink may take for one entry, and that the end waits for the last."""
GATHER: Final = 0.02
"""Seconds in which entries gather before they are written to a file, as a thread is asked to for each write."""
RETRY_AFTER: Final = 1.0
"""Seconds between two tries to write, where nothing may be lost."""
COMPLAIN_EVERY: Final = 10.0


@dataclass(frozen=True, slots=True)
class Audit:
    """Where the audit trail goes, and what happens when that is too slow.

    Args:
        to: A file (`-`: standard error), which gets lines of JSON; or a function, which gets each `AuditEntry`.
        when_full: "drop": entries are dropped and counted, and nothing else suffers. "block": requests wait until there
            is room, and get 503 after ten seconds; what fails is tried again, so that a line may stand there twice.
        limit: Entries that may wait. With "block" those of requests that run already come on top, up to as many again;
            beyond that they are dropped and counted.
    """

    to: str | Path | AuditSink
    when_full: Literal["drop", "block"] = "drop"
    limit: int = 10_000

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: A value that cannot be used.
        """
        if self.when_full not in ("drop", "block"):
            raise ConfigurationError(f'when_full of an audit trail is {self.when_full!r}; it must be "drop" or "block"')
        if self.limit < 1:
            raise ConfigurationError(f"limit of the audit trail is {self.limit}; it must be at least 1")
        if not callable(self.to) and not isinstance(self.to, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"the audit trail goes to {self.to!r:.80}; it must be a file or a function")
        if not callable(self.to) and not str(self.to):
            raise ConfigurationError("the audit trail goes to a file without a name; write - for standard error")


class AuditTrail:
    """Takes entries without waiting, and writes them in order, in a task of its own. Runs inside `async with`."""

    def __init__(self, audit: Audit, *, node: str, clock: Callable[[], float] = time.time) -> None:
        self.node = node
        self.clock = clock
        self._audit = audit
        self._waiting: deque[AuditEntry] = deque()
        self._file = None if callable(audit.to) else AuditFile(None if str(audit.to) == "-" else Path(audit.to))
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ending = False
        self._complained = float("-inf")
        self._written = self._dropped = self._failed = 0
        self._tasks = TaskOwner()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the file, if it is one.

        Raises:
            ConfigurationError: It cannot be written to.
        """
        if self._file is not None:
            try:
                await asyncio.to_thread(self._file.write, b"")
            except OSError as error:
                raise ConfigurationError(
                    f"the audit trail {str(self._audit.to)!r} cannot be written to: {error.strerror}"
                ) from error
        await self._tasks.__aenter__()
        self._writer = self._tasks.spawn(self._write_forever())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Write what waits, for ten seconds at most."""
        assert self._writer is not None
        self._ending = True
        self._news.set()
        try:
            await asyncio.wait((self._writer,), timeout=PATIENCE)
        finally:
            self._writer.cancel()
            await self._tasks.__aexit__(None, None, None)
            if self._waiting:
                self._dropped += len(self._waiting)
                logger.error("%d entries of the audit trail could not be written any more", len(self._waiting))
            if self._file is not None:
                self._file.close()

    def note(self, entry: AuditEntry) -> None:
        """Write `entry` soon, or drop it, as `Audit` says."""
        limit = self._audit.limit
        if len(self._waiting) >= (limit if self._audit.when_full == "drop" else 2 * limit):
            self._dropped += 1
            self._complain("entries of the audit trail are dropped: it is not written as fast as they come")
            return
        self._waiting.append(entry)
        self._news.set()
        if len(self._waiting) >= limit:
            self._room.clear()

    async def has_room(self) -> bool:
        """Whether a request may be taken: with "drop" always, with "block" once there is room, within ten seconds."""
        if self._audit.when_full == "drop" or self._room.is_set():
            return True
        try:
            async with asyncio.timeout(PATIENCE):
                await self._room.wait()
        except TimeoutError:
            return False
        return True

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "audit_waiting": len(self._waiting),
            "audit_written_total": self._written,
            "audit_dropped_total": self._dropped,
            "audit_failed_total": self._failed,
        }

    async def _write_forever(self) -> None:
        while self._waiting or not self._ending:
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            if self._file is not None and not self._ending and len(self._waiting) < BATCH:
                await asyncio.sleep(GATHER)
            # They leave the queue when they are written, so that what waits is what may be lost.
            batch = [self._waiting[place] for place in range(min(BATCH if self._file else 1, len(self._waiting)))]
            try:
                await self._write(batch)
            except BaseException as error:
                if ends_the_task(error):
                    raise
                self._failed += len(batch)
                self._complain(f"the audit trail cannot be written: {type(error).__name__}: {error}")
                if self._audit.when_full == "block":
                    await asyncio.sleep(RETRY_AFTER)
                    continue
            else:
                self._written += len(batch)
            for _ in batch:
                self._waiting.popleft()
            if len(self._waiting) < self._audit.limit:
                self._room.set()

    async def _write(self, batch: list[AuditEntry]) -> None:
        if self._file is not None:
            await asyncio.to_thread(self._file.write, b"".join(entry.line() for entry in batch))
            return
        assert callable(self._audit.to)
        for entry in batch:
            done = self._audit.to(entry)
            if inspect.isawaitable(done):
                async with asyncio.timeout(PATIENCE):
                    await done

    def _complain(self, what: str) -> None:
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_EVERY:
            self._complained = now
            logger.error("%s", what)
