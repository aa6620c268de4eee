"""`StreamTable`: the streams in memory that clients of this node's sessions hold, or may come back to."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Any, Final

from ...actors import Elsewhere
from ...actors.session.exchange import Exchange
from ...stores import Address
from ...stores.event_log import HEAD_LIMIT
from .left_streams import LeftStreams
from .log_keeper import LogKeeper
from .session_streams import SessionStreams
from .stream_head import StreamHead
from .stream_log import StreamLog
from .stream_room import StreamRoom
from .transcript import Transcript

__all__ = ["STANDALONE", "StreamTable"]

MAX_STREAMS_PER_SESSION: Final = 64
"""Streams of one session that are kept though nobody reads them and no turn writes them. no-silent-loss: those in use
are never dropped; the mailbox and the connections bound them."""
STANDALONE: Final = "standalone"
"""What the event log knows a session's standalone stream by."""


class StreamTable:
    """Resumable streams by session, with or without an event log that outlives them.

    An event id is `<stream>-<number>`. Names of requests' streams carry a random part, so that no two lives of a node
    give the same; for that of a standalone stream see `Standing`.
    """

    def __init__(
        self, clock: Callable[[], float], *, log: StreamLog | None = None, keeper: LogKeeper | None = None
    ) -> None:
        """`clock`: monotonic seconds. `keeper`: goes with `log`."""
        self._log = log
        self._keeper = keeper
        self._life = secrets.token_hex(6)
        self._names = itertools.count(1)
        self._sessions: dict[Address, SessionStreams] = {}
        self._left = LeftStreams(clock, self._drop)
        self._room = StreamRoom()
        self.resumed = 0
        self.on_empty: Callable[[Address], None] | None = None
        """Told of each session of which nothing is kept any more. Must not raise."""
        self.on_unheard: Callable[[Address, list[bytes]], None] | None = None
        """Told of what was published while another node wrote a standalone stream. Must not raise."""
        if log is not None:
            log.taken = self._taken

    def _of(self, address: Address) -> SessionStreams:
        streams = self._sessions.get(address)
        if streams is None:
            streams = self._sessions[address] = SessionStreams(address, self._room, self._drop_one_left)
        return streams

    # Coming

    def name(self, address: Address, exchange: Exchange, *, revision: str = "", primed: bool = False) -> None:
        """Give a request's stream its name; from now on the client may come back to it.

        `primed`: the name is told before the first event, and so is logged before.
        """
        self.sweep()
        exchange.id = f"{self._life}.{next(self._names):x}"
        streams = self._of(address)
        streams.requests[exchange.id] = exchange
        exchange.join(streams)
        exchange.when_finished = lambda: self.left(address, exchange)
        head = self._head(exchange, revision)
        if self._log is not None and head is not None:
            writer = self._log.writer()
            transcript = Transcript(address, exchange.id, exchange, writer, lambda: head, done=-1, anew=False)
            streams.transcripts = streams.transcripts or {}
            streams.transcripts[exchange.id] = transcript
            self._log.record(transcript, opening=primed)

    def _head(self, exchange: Exchange, revision: str) -> bytes | None:
        """None if the log cannot keep the request's id, which is whatever the client says, or there is no log."""
        if self._log is None:
            return None
        try:
            head = StreamHead(self._log.writer(), exchange.request_id, exchange.method, revision).pack()
        except (ValueError, OverflowError):
            return None
        return head if len(head) <= HEAD_LIMIT else None

    def stand(self, address: Address, exchange: Exchange, transcript: Transcript | None) -> None:
        """`exchange` is the session's standalone stream, of which there was none; `transcript` if it is logged."""
        streams = self._of(address)
        streams.standalone = exchange
        streams.standing = transcript
        exchange.join(streams)
        if self._log is not None and transcript is not None:
            self._log.record(transcript, opening=False)

    def standalone(self, address: Address) -> Exchange | None:
        """The session's standalone stream, if it is in memory."""
        streams = self._sessions.get(address)
        return streams.standalone if streams is not None else None

    def standing(self, address: Address) -> Transcript | None:
        """How far the session's standalone stream is logged, if it is."""
        streams = self._sessions.get(address)
        return streams.standing if streams is not None else None

    def request(self, address: Address, name: str) -> Exchange | None:
        """The stream of a request, if it is in memory."""
        self.sweep()
        streams = self._sessions.get(address)
        return streams.requests.get(name) if streams is not None else None

    def come_back(self, address: Address, exchange: Exchange) -> None:
        """A reader is due: the stream stays."""
        self._unleave(address, _key(exchange))

    # Going

    def left(self, address: Address, exchange: Exchange) -> None:
        """Nobody reads `exchange` any more, and no reader is due: keep it for a while, within bounds."""
        if not exchange.id or exchange.attached or (exchange.request_id is not None and not exchange.finished):
            return
        streams = self._sessions.get(address)
        if streams is None or not streams.holds(exchange):
            return
        if exchange.elsewhere is not None:
            # Its request was not served here, and so there is nothing to come back to.
            self._drop(address, _key(exchange))
            return
        key = _key(exchange)
        self._unleave(address, key)
        self._left.add(address, key, exchange.size)
        streams.kept += 1
        if streams.kept > MAX_STREAMS_PER_SESSION:
            self._drop_one_left(streams)
        self.sweep()

    def _drop_one_left(self, streams: SessionStreams) -> bool:
        """Make room in a session: one that has arrived goes first, then the oldest."""
        kept = [stream for id, stream in streams.requests.items() if (streams.address, id) in self._left]
        if not kept:
            return False
        self._drop(streams.address, next((stream.id for stream in kept if stream.delivered), kept[0].id))
        return True

    def _unleave(self, address: Address, key: str) -> None:
        if self._left.remove(address, key) and (streams := self._sessions.get(address)) is not None:
            streams.kept -= 1

    def sweep(self) -> None:
        """Forget what has been left for too long, or is too much. Costs what it forgets."""
        self._left.sweep()

    def _drop(self, address: Address, key: str, *, moving: bool = False) -> None:
        """Let go of a stream in memory. `moving`: the next owner is to find in the log what is on its way there."""
        streams = self._sessions.get(address)
        self._unleave(address, key)
        if streams is None:
            return
        if key == STANDALONE:
            exchange, transcript = streams.leave_standing()
        else:
            exchange = streams.requests.pop(key, None)
            transcript = streams.transcripts.pop(key, None) if streams.transcripts is not None else None
        if exchange is not None:
            if transcript is not None and not moving and exchange.elsewhere is None:
                self._settle(exchange, transcript)
            exchange.join(None)
            exchange.cut()
        self._forget_if_empty(address, streams)

    def _settle(self, exchange: Exchange, transcript: Transcript) -> None:
        """Have the log forget what has arrived, and what it could never have whole."""
        assert self._log is not None
        assert self._keeper is not None
        if exchange.delivered or self._log.is_behind(transcript):
            self._log.forget(exchange, transcript)
            self._keeper.drop(transcript.address, transcript.name)

    def _forget_if_empty(self, address: Address, streams: SessionStreams) -> None:
        if streams.empty and self._sessions.get(address) is streams:
            del self._sessions[address]
            if self.on_empty is not None:
                self.on_empty(address)

    def _taken(self, address: Address, exchange: Exchange, unheard: list[bytes]) -> None:
        """Another node writes this stream now. What it wrote is in the log."""
        streams = self._sessions.get(address)
        if streams is not None and streams.holds(exchange):
            self._drop(address, _key(exchange), moving=True)
        if exchange.request_id is None and unheard and self.on_unheard is not None:
            self.on_unheard(address, unheard)

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
        self._close_standing(streams, elsewhere=True)
        for exchange in list(streams.requests.values()):
            if exchange.finished and not exchange.attached:
                self._drop(address, exchange.id, moving=True)
        self._forget_if_empty(address, streams)

    def end(self, address: Address, *, logged: bool = True) -> None:
        """The session is over: its streams close, and nothing of them is kept. `logged`: some may have been."""
        if self._keeper is not None and logged:
            self._keeper.drop_all(address)
        streams = self._sessions.pop(address, None)
        if streams is None:
            return
        for exchange in streams.all:
            self._unleave(address, _key(exchange))
            transcript = streams.transcript(exchange)
            if transcript is not None and self._log is not None:
                self._log.forget(exchange, transcript)
            exchange.join(None)
            exchange.close()
        if self.on_empty is not None:
            self.on_empty(address)

    def close_standalone(self) -> None:
        """Close every standalone stream: the node is draining. Clients come back, here or elsewhere."""
        for address in list(self._sessions):
            self.close_standing(address)

    def close_standing(self, address: Address) -> None:
        """Close the session's standalone stream, if there is one. Whoever reads it comes back."""
        streams = self._sessions.get(address)
        if streams is not None:
            self._close_standing(streams, elsewhere=False)
            self._forget_if_empty(address, streams)

    def close(self) -> None:
        """The node has stopped: nothing is forgotten in time any more. Idempotent."""
        self._left.close()

    def _close_standing(self, streams: SessionStreams, *, elsewhere: bool) -> None:
        exchange, _ = streams.leave_standing()
        if exchange is None:
            return
        self._unleave(streams.address, STANDALONE)
        exchange.join(None)
        if elsewhere:
            exchange.fail(Elsewhere(streams.address))
        else:
            exchange.close()

    # `StandaloneStreams`, in part: see `Standing`

    def publish(self, address: Address, message: dict[str, Any]) -> bool:
        """Send on the session's standalone stream, if it is in memory; whether it is."""
        streams = self._sessions.get(address)
        if streams is None or streams.standalone is None:
            return False
        streams.standalone.send(message)
        if not streams.standalone.attached:
            self._left.weigh(address, STANDALONE, streams.standalone.size)
        return True

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        numbers = {
            "streams_sessions": len(self._sessions),
            "streams_bytes": self._room.taken,
            "streams_kept": len(self._left),
            "streams_kept_bytes": self._left.bytes,
            "streams_resumed_total": self.resumed,
        }
        if self._log is not None and self._keeper is not None:
            numbers |= self._log.stats() | self._keeper.stats()
        return numbers


def _key(exchange: Exchange) -> str:
    return STANDALONE if exchange.request_id is None else exchange.id
