"""`ResumableStreams`: all that a node needs for streams that clients come back to, put together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from ...actors.clock import Clock
from ...stores import EventLog
from .log_keeper import LogKeeper
from .resumption import Resumption
from .standing import Standing
from .stream_log import StreamLog
from .streams import StreamTable

__all__ = ["ResumableStreams"]


class ResumableStreams:
    """Enter it, so that its tasks have an owner. Without an event log streams live and die with the node."""

    def __init__(
        self,
        event_log: EventLog | None,
        *,
        timeout: float,
        writer: Callable[[], str] | None = None,
        writer_alive: Callable[[str], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`timeout`: seconds for one answer of the log. `writer`: see `Placement`; None: a random name.
        `writer_alive`: see `Resumption`.
        """
        life = secrets.token_hex(8)
        self.log = None
        self.keeper = None
        if event_log is not None:
            self.log = StreamLog(event_log, writer=writer or (lambda: life), timeout=timeout, clock=clock)
            self.keeper = LogKeeper(self.log)
        self.table = StreamTable(
            clock.monotonic if clock is not None else time.monotonic, log=self.log, keeper=self.keeper
        )
        self.standing = Standing(self.table, self.log, self.keeper)
        self.resumption = Resumption(self.table, self.log, self.keeper, writer_alive=writer_alive)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self.log is not None and self.keeper is not None:
            await self._stack.enter_async_context(self.log)
            self.log.spawn(self.keeper.expire_forever())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.table.close()
        await self._stack.aclose()

    async def flush(self, timeout: float) -> None:
        """Have the log get what it lacks, and lose what nobody wants any more, within `timeout` seconds."""
        if self.log is not None and self.keeper is not None:
            began = self.log.clock.monotonic()
            await self.log.flush(timeout)
            await self.keeper.flush(max(timeout - (self.log.clock.monotonic() - began), 0.1))

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return self.table.stats() | self.standing.stats() | self.resumption.stats()
