"""`LogKeeper`: what leaves the event log, in batches and never while a client waits."""

from __future__ import annotations

import logging
from typing import Final

from ...actors.clock import within
from ...stores import Address, StoreError
from .stream_log import StreamLog

__all__ = ["LogKeeper"]

logger = logging.getLogger(__name__)

COLLECT: Final = 0.5
"""Seconds that streams are collected for before one call drops them all."""
BATCH: Final = 256
MAX_PENDING: Final = 16_384
"""Streams that wait to be dropped; what is more is left to its age."""
EXPIRE_EVERY: Final = 60.0
EXPIRE_AT_ONCE: Final = 1000
RETRY_AFTER: Final = 5.0


class LogKeeper:
    """Drops streams that nobody can want any more, and sweeps those that are too old. Its tasks are the log's."""

    def __init__(self, writer: StreamLog) -> None:
        self._writer = writer
        self._streams: dict[tuple[Address, str], None] = {}
        self._sessions: dict[Address, None] = {}
        self._working = False
        self.dropped = self.expired = self.failed = 0

    def drop(self, address: Address, stream: str) -> None:
        """This stream is to go."""
        if len(self._streams) < MAX_PENDING:
            self._streams[address, stream] = None
            self._work_soon()

    def drop_all(self, address: Address) -> None:
        """Every stream of this session is to go."""
        if len(self._sessions) < MAX_PENDING:
            self._sessions[address] = None
            self._work_soon()

    def is_going(self, address: Address, stream: str) -> bool:
        """Whether a stream is as good as dropped."""
        return (address, stream) in self._streams or address in self._sessions

    def stays(self, address: Address, stream: str) -> None:
        """A stream begins again under this name: it is not to go after all."""
        self._streams.pop((address, stream), None)

    def _work_soon(self) -> None:
        if not self._working and not self._writer.closed:
            self._working = True
            self._writer.spawn(self._work())

    async def _work(self) -> None:
        writer = self._writer
        try:
            while self._streams or self._sessions:
                # A session that has ended should leave nothing; streams of those that go on are in no hurry.
                if not self._sessions:
                    await writer.clock.sleep(COLLECT)
                try:
                    await self._round()
                except Exception as error:
                    self._note("streams could not be dropped from the event log", error)
                    await writer.clock.sleep(RETRY_AFTER)
        finally:
            self._working = False

    async def _round(self) -> None:
        log, writer = self._writer.log, self._writer
        for address in list(self._sessions):
            await within(writer.clock, writer.timeout, log.drop_all(address))
            self._sessions.pop(address, None)
            self.dropped += 1
        batch = list(self._streams)[:BATCH]
        if batch:
            await within(writer.clock, writer.timeout, log.drop(batch))
            for key in batch:
                self._streams.pop(key, None)
            self.dropped += len(batch)

    async def expire_forever(self) -> None:
        """Until cancelled."""
        writer = self._writer
        while True:
            await writer.clock.sleep(EXPIRE_EVERY)
            try:
                gone = EXPIRE_AT_ONCE
                while gone == EXPIRE_AT_ONCE:
                    gone = await within(writer.clock, writer.timeout, writer.log.expire(limit=EXPIRE_AT_ONCE))
                    self.expired += gone
            except Exception as error:
                self._note("the event log could not be swept", error)

    def _note(self, what: str, error: Exception) -> None:
        """A log of somebody else's may raise anything; what is left then goes by its age."""
        self.failed += 1
        known = isinstance(error, StoreError | TimeoutError)
        logger.log(
            logging.INFO if known else logging.ERROR, "%s: %s", what, error or type(error).__name__, exc_info=not known
        )

    async def flush(self, timeout: float) -> None:
        """Drop now what is to be dropped, as far as `timeout` seconds allow."""
        try:
            await within(self._writer.clock, timeout, self._rounds())
        except Exception as error:
            self._note("streams that are over stay in the event log", error)

    async def _rounds(self) -> None:
        while self._streams or self._sessions:
            await self._round()

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "streams_log_drops_waiting": len(self._streams) + len(self._sessions),
            "streams_log_dropped_total": self.dropped,
            "streams_log_expired_total": self.expired,
        }
