"""`Resumption`: finds the stream of a request that a client comes back to: in memory, or in the event log."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from mcp_types import INVALID_REQUEST

from ...actors.clock import within
from ...actors.session.exchange import Exchange
from ...actors.session.wire import SERVER_BUSY, Refusal
from ...actors.task_owner import TaskOwner
from ...stores import Address, LoggedStream, StoreError, StreamTaken
from ..wire.refusals import Refused
from .log_keeper import LogKeeper
from .sealing import closing_events
from .stream_head import DamagedHead, StreamHead
from .stream_log import StreamLog
from .streams import StreamTable

__all__ = ["Resumed", "Resumption", "event_position", "unknown_event"]

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 0.25
"""Seconds between two looks at a stream that another node still writes."""
TRIES: Final = 5
_MAX_NUMBER: Final = 2**53


def event_position(event_id: str) -> tuple[str, int] | None:
    """The stream and the number that an event id spells; None if it spells none."""
    name, _, number = event_id.rpartition("-")
    if not name or len(number) > 16 or not (number.isascii() and number.isdecimal()) or int(number) > _MAX_NUMBER:
        return None
    return name, int(number)


def unknown_event(event_id: str) -> Refused:
    """What the client is told that comes back with an id of which nothing follows here."""
    text = (
        f"no event {event_id[:64]!r} to resume from: it is unknown in this session, or no longer kept; "
        "send the request again, or open a new stream without Last-Event-ID"
    )
    return Refused(Refusal(INVALID_REQUEST, text, status=400))


_UNAVAILABLE: Final = Refusal(
    SERVER_BUSY, "The event log is out of reach; come back in a moment with the same Last-Event-ID", None, 503, 1.0
)


class Resumed(NamedTuple):
    """A stream to go on with."""

    exchange: Exchange
    after: int
    """The number of the last event that need not be sent, be it in `earlier`."""
    earlier: list[tuple[int, bytes]]
    """What the client lacks of the events before those in memory."""


class Resumption:
    """Memory first. What only the log has is replayed from there; a stream whose writer is dead is sealed before, and
    one whose writer lives (a reading call that goes on at the node that had the session before) is followed.
    """

    def __init__(
        self,
        table: StreamTable,
        log: StreamLog | None = None,
        keeper: LogKeeper | None = None,
        *,
        writer_alive: Callable[[str], bool] | None = None,
    ) -> None:
        """`writer_alive`: whether another node, which began a stream, may still go on with it; None: there is none."""
        self._table = table
        self._log = log
        self._keeper = keeper
        self._writer_alive = writer_alive
        self._replicas: dict[tuple[Address, str], Exchange] = {}
        self.replayed = self.sealed = self.followed = 0

    @asynccontextmanager
    async def resume(self, address: Address, event_id: str) -> AsyncGenerator[Resumed]:
        """The stream that `event_id` belongs to, for one reader, who takes it from any before.

        Raises:
            Refused: There is no such event in this session, or what follows it is not kept; or the log, without which
                that cannot be told, is out of reach.
        """
        position = event_position(event_id)
        found = self._in_memory(address, *position) if position is not None else None
        if position is None or (found is None and self._log is None):
            raise unknown_event(event_id)
        if found is not None:
            try:
                yield found
            finally:
                self._table.left(address, found.exchange)
            return
        name, number = position
        if self._keeper is not None and self._keeper.is_going(address, name):
            raise unknown_event(event_id)
        logged = await self._read(address, name, number)
        if logged is None or number + 1 < logged.oldest or _head(logged).request_id is None:
            raise unknown_event(event_id)
        exchange = self._table.request(address, name)
        if exchange is not None:
            if number > logged.last or logged.last + 1 < exchange.oldest:
                raise unknown_event(event_id)
            # Its memory was shorter than the log's.
            self._table.come_back(address, exchange)
            try:
                self._table.resumed += 1
                resumed = Resumed(exchange, logged.last, list(enumerate(logged.events, logged.first)))
                # bounded: what has gone out of `earlier` is to be let go of, and the stream may last.
                del logged
                yield resumed
            finally:
                self._table.left(address, exchange)
            return
        if number > logged.last:
            logged = await self._beyond(address, event_id, number, logged)
        async with self._replica(address, name, number, logged) as replica:
            yield replica

    async def _beyond(self, address: Address, event_id: str, number: int, logged: LoggedStream) -> LoggedStream:
        """The client has what the log lacks, if its events left while the log was out of reach.

        Where their node has died there is nothing to go on with but the end. While it lives it may yet log them.
        """
        head = _head(logged)
        if not logged.ended:
            if self._is_written(head):
                raise Refused(_UNAVAILABLE)
            name, _ = event_position(event_id) or ("", 0)
            logged = await self._seal(address, name, number, head, logged)
        if logged.writer == head.writer:
            raise unknown_event(event_id)
        return logged

    def _in_memory(self, address: Address, name: str, number: int) -> Resumed | None:
        exchange = self._table.request(address, name)
        if exchange is None or number > exchange.last or number + 1 < exchange.oldest:
            return None
        self._table.come_back(address, exchange)
        self._table.resumed += 1
        return Resumed(exchange, number, [])

    # From the log

    @asynccontextmanager
    async def _replica(self, address: Address, name: str, number: int, logged: LoggedStream) -> AsyncGenerator[Resumed]:
        head = _head(logged)
        if not logged.ended and not self._is_written(head):
            logged = await self._seal(address, name, number, head, logged)
        replica = Exchange(head.request_id, head.method)
        replica.id = name
        # The last event of a stream that was sealed is this client's only end, whatever number it takes it for.
        sealed = logged.ended and logged.writer != head.writer
        events = logged.events
        first = logged.first
        if sealed and number >= logged.last and number >= 1:
            again = await self._read(address, name, logged.last - 1)
            events = again.events if again is not None else ()
            first = number
        replica.begin_after(first - 1)
        for event in events:
            replica.keep(event, any_size=True)
        if (older := self._replicas.get((address, name))) is not None:
            older.cut()
            # bounded: its reader may hang in a write for a while yet, and takes nothing more.
            older.close()
            older.forget(older.last)
        self._replicas[address, name] = replica
        self._table.resumed += 1
        self.replayed += 1
        try:
            async with TaskOwner() as tasks:
                following = None
                if logged.ended:
                    replica.close()
                else:
                    self.followed += 1
                    following = tasks.spawn(self._follow(address, name, head, replica))
                try:
                    yield Resumed(replica, first - 1, [])
                finally:
                    if following is not None:
                        following.cancel()
        finally:
            if self._replicas.get((address, name)) is replica:
                del self._replicas[address, name]

    def _is_written(self, head: StreamHead) -> bool:
        """Whether the stream may still go on. Not if it is this node's own, which would be in memory."""
        assert self._log is not None
        if head.writer == self._log.writer() or self._writer_alive is None:
            return False
        return self._writer_alive(head.writer)

    async def _follow(self, address: Address, name: str, head: StreamHead, replica: Exchange) -> None:
        """Pass on what another node still appends, until the stream ends."""
        assert self._log is not None
        while not replica.finished:
            await self._log.clock.sleep(LOOK_EVERY)
            try:
                logged = await self._read(address, name, replica.last)
                if logged is not None and not logged.ended and not self._is_written(head):
                    logged = await self._seal(address, name, replica.last, head, logged)
            except Refused as refused:
                logger.info("a stream that another node writes cannot be followed now: %s", refused)
                continue
            if logged is None or logged.last < replica.last or logged.oldest > replica.last + 1:
                # Gone from the log: who comes back for it is told so.
                replica.cut()
                return
            for event in logged.events:
                replica.pass_on(event)
            if logged.ended:
                replica.close()

    async def _seal(
        self, address: Address, name: str, number: int, head: StreamHead, logged: LoggedStream
    ) -> LoggedStream:
        """End a stream whose writer is dead, unless somebody else has; the stream, which has ended.

        never-run-twice: its call may have run, and is not repeated.
        """
        log = self._log
        assert log is not None
        for _ in range(TRIES):
            whole = await self._read(address, name, 0)
            if whole is None:
                return logged
            if not whole.ended:
                closing = closing_events(head.request_id, whole.events)
                # Under a name of its own: should the writer live after all, what it appends is no repeat of this.
                sealer = f"{log.writer()[:120]}.sealed"
                append = log.log.append(
                    address, name, whole.last + 1, closing, head=whole.head, writer=sealer, ends=True
                )
                try:
                    await within(log.clock, log.timeout, append)
                except StreamTaken:
                    continue
                except (StoreError, TimeoutError) as error:
                    raise Refused(_UNAVAILABLE) from error
                self.sealed += 1
                logger.info("stream %s of %s is over: the node that wrote it is gone", name, address)
            sealed = await self._read(address, name, number)
            if sealed is not None and sealed.ended:
                return sealed
        raise Refused(_UNAVAILABLE)

    async def _read(self, address: Address, name: str, after: int) -> LoggedStream | None:
        log = self._log
        assert log is not None
        try:
            logged = await within(log.clock, log.timeout, log.log.read(address, name, after=after))
            if logged is not None:
                _head(logged)
        except ValueError:
            # No name that a log takes.
            return None
        except (StoreError, TimeoutError, DamagedHead) as error:
            raise Refused(_UNAVAILABLE) from error
        return logged

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "streams_replayed_total": self.replayed,
            "streams_sealed_total": self.sealed,
            "streams_followed_total": self.followed,
        }


def _head(logged: LoggedStream) -> StreamHead:
    return StreamHead.unpack(logged.head)
