"""`StreamTable`: the streams that clients of this node's sessions hold, or may come back to."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from ..actors import Elsewhere
from ..actors.session.exchange import Exchange
from ..stores import Address, UnderstudyError

__all__ = ["StreamTable", "UnknownEvent"]

MAX_STREAMS_PER_SESSION: Final = 64
"""Streams of one session that are kept though nobody reads them and no turn writes them. no-silent-loss: those in use
are never dropped; the mailbox and the connections bound them."""
MAX_KEPT_STREAMS: Final = 16_384
MAX_KEPT_BYTES: Final = 256 * 2**20
GRACE: Final = 60.0
"""Seconds that a finished stream, or a standalone one without a reader, is kept for a client to come back to."""


class UnknownEvent(UnderstudyError):
    """A `Last-Event-ID` that names no event that can be resumed from."""


class _SessionStreams:
    __slots__ = ("kept", "requests", "standalone")

    def __init__(self) -> None:
        self.standalone: Exchange | None = None
        self.requests: OrderedDict[str, Exchange] = OrderedDict()
        self.kept = 0
        """How many of them are being left."""

    def holds(self, exchange: Exchange) -> bool:
        return exchange is self.standalone or self.requests.get(exchange.id) is exchange


class StreamTable:
    """Resumable streams by session. In memory: they do not outlive the node.

    An event id is `<stream>-<number>`; stream names carry a random part, so that an id of an earlier life of the
    node is unknown rather than taken for one of this life.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._clock = clock
        self._life = secrets.token_hex(4)
        self._names = itertools.count(1)
        self._sessions: dict[Address, _SessionStreams] = {}
        self._leaving: OrderedDict[tuple[Address, str], tuple[float, int]] = OrderedDict()
        self._leaving_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.resumed = 0
        self.on_empty: Callable[[Address], None] | None = None
        """Told of each session of which nothing is kept any more. Must not raise."""

    def _of(self, address: Address) -> _SessionStreams:
        streams = self._sessions.get(address)
        if streams is None:
            streams = self._sessions[address] = _SessionStreams()
        return streams

    def name(self, address: Address, exchange: Exchange) -> None:
        """Give a request's stream its name; from now on the client may come back to it."""
        self.sweep()
        exchange.id = f"{self._life}.{next(self._names):x}"
        self._of(address).requests[exchange.id] = exchange
        exchange.when_finished = lambda: self.left(address, exchange)

    def open_standalone(self, address: Address) -> Exchange:
        """The session's standalone stream, made if there is none. The newest reader takes it over."""
        self.sweep()
        streams = self._of(address)
        if streams.standalone is None:
            streams.standalone = Exchange(None, "")
            streams.standalone.id = f"{self._life}.{next(self._names):x}"
        self._unleave(address, streams.standalone.id)
        return streams.standalone

    def find(self, address: Address, event_id: str) -> tuple[Exchange, int]:
        """The stream that `event_id` belongs to, and the number of that event.

        Raises:
            UnknownEvent: No such stream in this session, or its events up to that one are not kept any more.
        """
        self.sweep()
        name, _, number = event_id.rpartition("-")
        streams = self._sessions.get(address)
        exchange: Exchange | None = None
        if streams is not None and number.isdecimal() and len(number) < 16:
            exchange = streams.requests.get(name)
        if exchange is None or int(number) > exchange.last or int(number) + 1 < exchange.oldest:
            raise UnknownEvent(
                f"no event {event_id[:64]!r} to resume from: it is unknown in this session, or no longer kept; "
                "send the request again, or open a new stream without Last-Event-ID"
            )
        self._unleave(address, exchange.id)
        self.resumed += 1
        return exchange, int(number)

    def left(self, address: Address, exchange: Exchange) -> None:
        """Nobody reads `exchange` any more, and no reader is due: keep it for a while, within bounds."""
        if not exchange.id or exchange.attached or (exchange.request_id is not None and not exchange.finished):
            return
        streams = self._sessions.get(address)
        if streams is None or not streams.holds(exchange):
            return
        if exchange.elsewhere is not None:
            # Its request was not served here, and so there is nothing to come back to.
            self._drop(address, exchange.id)
            return
        self._unleave(address, exchange.id)
        self._leaving[address, exchange.id] = (self._clock() + GRACE, exchange.size)
        self._leaving_bytes += exchange.size
        self._sweep_later()
        streams.kept += 1
        if streams.kept > MAX_STREAMS_PER_SESSION:
            kept = [stream for id, stream in streams.requests.items() if (address, id) in self._leaving]
            # One that was read to its end has most likely arrived.
            self._drop(address, next((stream.id for stream in kept if stream.read == stream.last), kept[0].id))
        self.sweep()

    def _unleave(self, address: Address, id: str) -> None:
        left = self._leaving.pop((address, id), None)
        if left is not None:
            self._leaving_bytes -= left[1]
            if (streams := self._sessions.get(address)) is not None:
                streams.kept -= 1

    def _sweep_later(self) -> None:
        """Nothing else may happen on a node that has gone quiet: see to it that what is left goes in time."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._sweep_in_time)

    def _sweep_in_time(self) -> None:
        self._timer = None
        self.sweep()
        if self._leaving:
            self._sweep_later()

    def sweep(self) -> None:
        """Forget what has been left for too long, or is too much. Costs what it forgets."""
        now = self._clock()
        while self._leaving:
            (address, id), (until, _) = next(iter(self._leaving.items()))
            if until > now and len(self._leaving) <= MAX_KEPT_STREAMS and self._leaving_bytes <= MAX_KEPT_BYTES:
                return
            self._drop(address, id)

    def _drop(self, address: Address, id: str) -> None:
        streams = self._sessions.get(address)
        self._unleave(address, id)
        if streams is None:
            return
        exchange = streams.requests.pop(id, None)
        if exchange is None and streams.standalone is not None and streams.standalone.id == id:
            exchange, streams.standalone = streams.standalone, None
        if exchange is not None:
            exchange.cut()
        self._forget_if_empty(address, streams)

    def _forget_if_empty(self, address: Address, streams: _SessionStreams) -> None:
        if streams.standalone is None and not streams.requests and self._sessions.get(address) is streams:
            del self._sessions[address]
            self._emptied(address)

    def _emptied(self, address: Address) -> None:
        if self.on_empty is not None:
            self.on_empty(address)

    def holds(self, address: Address) -> bool:
        """Whether anything is kept of the session: a client reads, or may come back to, a stream of it."""
        return address in self._sessions

    def move(self, address: Address) -> None:
        """The session is another node's now. Its standalone stream ends, to go on there (`Exchange.elsewhere`).

        Streams of requests are dropped, but for those that a turn still writes or a client still reads.
        """
        streams = self._sessions.get(address)
        if streams is None:
            return
        standalone, streams.standalone = streams.standalone, None
        if standalone is not None:
            self._unleave(address, standalone.id)
            standalone.fail(Elsewhere(address))
        for exchange in list(streams.requests.values()):
            if exchange.finished and not exchange.attached:
                self._drop(address, exchange.id)
        self._forget_if_empty(address, streams)

    def end(self, address: Address) -> None:
        """The session is over: its streams close, and nothing of them is kept."""
        streams = self._sessions.pop(address, None)
        if streams is None:
            return
        ended = list(streams.requests.values())
        if streams.standalone is not None:
            ended.append(streams.standalone)
        for exchange in ended:
            self._unleave(address, exchange.id)
            exchange.close()
        self._emptied(address)

    def close_standalone(self) -> None:
        """Close every standalone stream: the node is draining. Clients come back, here or elsewhere."""
        for address, streams in list(self._sessions.items()):
            standalone, streams.standalone = streams.standalone, None
            if standalone is not None:
                self._unleave(address, standalone.id)
                standalone.close()
                self._forget_if_empty(address, streams)

    # `StandaloneStreams` for the session kind

    def publish(self, address: Address, message: dict[str, Any]) -> bool:
        streams = self._sessions.get(address)
        if streams is None or streams.standalone is None:
            return False
        streams.standalone.send(message)
        return True

    def standalone(self, address: Address) -> Exchange | None:
        streams = self._sessions.get(address)
        return streams.standalone if streams is not None else None

    def stats(self) -> dict[str, int]:
        return {
            "streams_sessions": len(self._sessions),
            "streams_kept": len(self._leaving),
            "streams_kept_bytes": self._leaving_bytes,
            "streams_resumed_total": self.resumed,
        }
