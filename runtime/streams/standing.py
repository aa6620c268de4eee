"""`Standing`: the standalone stream of each session, which goes on from owner to owner."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from typing import Any, Final, NamedTuple

from ...actors.clock import within
from ...actors.session.exchange import Exchange
from ...stores import Address, LoggedStream, StoreError
from .log_keeper import LogKeeper
from .stream_head import DamagedHead, StreamHead
from .stream_log import StreamLog
from .streams import STANDALONE, StreamTable
from .transcript import Transcript

__all__ = ["Opened", "Standing", "tag_of"]

logger = logging.getLogger(__name__)

_NONE_OF_IT: Final = 2**53
"""Read a stream from this number on, and what comes is all but its events."""


def tag_of(address: Address) -> str:
    """What the names of a session's standalone stream begin with, whoever gives them, and those of no other session."""
    return hashlib.sha256(address.id.encode()).hexdigest()[:16]


class Opened(NamedTuple):
    """A standalone stream that a client may read."""

    exchange: Exchange
    after: int | None
    """The number of the last event that the client has; None if nobody can tell, and what has not been read follows."""
    earlier: list[tuple[int, bytes]]
    """What the client lacks of the events before those in memory."""
    complete: bool
    """The client misses nothing if it gets what follows. Otherwise it must be told to read everything again."""


class Standing:
    """`StandaloneStreams` for the session kind, and what the handshake leg needs of them.

    Events have the ids `<tag>.<life>-<number>`. A life is a stretch that the log has without a gap: named by whoever
    begins it, in the stream's head. An owner that finds a stream in the log goes on with it, in the same life; one that
    has to send what the log lacks begins another. So a known life proves that nothing was missed, and any other that
    something may have been. Nothing is logged before there is something to say, or the session moves on.
    """

    def __init__(self, table: StreamTable, log: StreamLog | None = None, keeper: LogKeeper | None = None) -> None:
        self._table = table
        self._log = log
        self._keeper = keeper
        self._waking: dict[Address, asyncio.Future[None]] = {}
        self.adopted = self.incomplete = 0
        table.on_unheard = self._say_again_soon

    # `StandaloneStreams`

    def publish(self, address: Address, message: dict[str, Any]) -> bool:
        """See `StandaloneStreams.publish`."""
        return self._table.publish(address, message)

    def standalone(self, address: Address) -> Exchange | None:
        """See `StandaloneStreams.standalone`."""
        return self._table.standalone(address)

    async def wake(self, address: Address, *, begin: bool = False) -> bool:
        """See `StandaloneStreams.wake`."""
        while self._table.standalone(address) is None:
            waking = self._waking.get(address)
            if waking is None:
                return await self._wake(address, begin)
            await asyncio.shield(waking)
        return True

    async def _wake(self, address: Address, begin: bool) -> bool:
        if self._log is None and not begin:
            return False
        done = self._waking[address] = asyncio.get_running_loop().create_future()
        try:
            known, logged = await self._read(address, _NONE_OF_IT)
            if self._table.standalone(address) is None and (logged is not None or not known or begin):
                # Where the log does not say whether there is a stream, this is another: what the client may have of
                # that one proves nothing any more.
                self._adopt_or_begin(address, logged, anew=not known)
                self._table.left(address, self._of(address))
        finally:
            del self._waking[address]
            done.set_result(None)
        return self._table.standalone(address) is not None

    async def settled(self, address: Address) -> None:
        """See `StandaloneStreams.settled`."""
        transcript = self._table.standing(address)
        if transcript is not None and self._log is not None:
            await self._log.settled(transcript)

    def _say_again_soon(self, address: Address, messages: list[bytes]) -> None:
        if self._log is not None and not self._log.closed:
            self._log.spawn(self._say_again(address, messages))

    async def _say_again(self, address: Address, messages: list[bytes]) -> None:
        """Append `messages` behind what another node has written in their place: never a silent miss.

        They are for the log. Which of the two nodes has the session is not known here, so nothing stays in memory.
        """
        await self.wake(address, begin=True)
        exchange = self._table.standalone(address)
        if exchange is None:
            return
        for message in messages:
            exchange.pass_on(message)
        await self.settled(address)
        if not exchange.attached and self._table.standalone(address) is exchange:
            self._table.close_standing(address)

    # For readers

    async def open(self, address: Address, resume: tuple[str, int] | None, *, fresh: bool) -> Opened:
        """The session's standalone stream, made if there is none. The newest reader takes it over.

        `resume`: the life and the number of the event that the client had last. `fresh`: this node knows of no reader
        before, because the session began here.
        """
        exchange = self._table.standalone(address)
        # Of one that was only woken, nobody knows what a client lacks that does not say what it has.
        met = exchange is not None and (exchange.generation > 0 or not exchange.read)
        if exchange is None:
            known, logged = True, None
            if not fresh and self._log is not None:
                known, logged = await self._read(address, _NONE_OF_IT)
            exchange = self._table.standalone(address) or self._adopt_or_begin(address, logged, anew=not known)
        self._table.come_back(address, exchange)
        try:
            opened = await self._from(address, exchange, resume, complete=met or fresh)
        except BaseException:
            self._table.left(address, exchange)
            raise
        self.incomplete += not opened.complete
        return opened

    async def _from(
        self, address: Address, exchange: Exchange, resume: tuple[str, int] | None, *, complete: bool
    ) -> Opened:
        if resume is None:
            return Opened(exchange, None, [], complete)
        life, number = resume
        if life != _life(exchange):
            return Opened(exchange, None, [], complete=False)
        if number > exchange.last:
            # It was sent what the log did not get, by an owner that is gone: its number will be another event's.
            self._renew(address, exchange)
            return Opened(exchange, None, [], complete=False)
        if number + 1 >= exchange.oldest:
            return Opened(exchange, number, [], complete=True)
        _, logged = await self._read(address, number)
        if logged is None or number + 1 < logged.oldest or _head(logged).life != _life(exchange):
            return Opened(exchange, exchange.oldest - 1, [], complete=False)
        earlier = list(enumerate(logged.events, logged.first))
        return Opened(exchange, logged.last, earlier, complete=True)

    async def _read(self, address: Address, after: int) -> tuple[bool, LoggedStream | None]:
        """Whether the log could say, and what it has."""
        log = self._log
        if log is None:
            return True, None
        if self._keeper is not None and self._keeper.is_going(address, STANDALONE):
            return False, None
        try:
            logged = await within(log.clock, log.timeout, log.log.read(address, STANDALONE, after=after))
            if logged is not None:
                _head(logged)
        except (StoreError, TimeoutError, DamagedHead) as error:
            logger.info("the standalone stream of %s begins anew: %s", address, error or type(error).__name__)
            return False, None
        return True, logged

    # Beginning

    def _of(self, address: Address) -> Exchange:
        exchange = self._table.standalone(address)
        assert exchange is not None
        return exchange

    def _adopt_or_begin(self, address: Address, logged: LoggedStream | None, *, anew: bool) -> Exchange:
        exchange = Exchange(None, "")
        life = secrets.token_hex(6)
        done = -1
        if logged is not None:
            self.adopted += 1
            life, done = _head(logged).life, logged.last
            exchange.begin_after(done)
            exchange.read = done
        exchange.id = f"{tag_of(address)}.{life}"
        transcript = None
        log = self._log
        if log is not None:
            writer = log.writer()
            transcript = Transcript(
                address,
                STANDALONE,
                exchange,
                writer,
                lambda: StreamHead(writer, life=_life(exchange)).pack(),
                done=done,
                anew=anew,
                renew=lambda: self._renew(address, exchange),
            )
            if self._keeper is not None:
                self._keeper.stays(address, STANDALONE)
        self._table.stand(address, exchange, transcript)
        return exchange

    def _renew(self, address: Address, exchange: Exchange) -> None:
        """Go on in another life: of the present one more has left than the log has."""
        exchange.id = f"{tag_of(address)}.{secrets.token_hex(6)}"
        transcript = self._table.standing(address)
        if transcript is not None and transcript.exchange is exchange:
            transcript.begin_anew()

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {"streams_adopted_total": self.adopted, "streams_incomplete_total": self.incomplete}


def _life(exchange: Exchange) -> str:
    return exchange.id.rpartition(".")[2]


def _head(logged: LoggedStream) -> StreamHead:
    return StreamHead.unpack(logged.head)
