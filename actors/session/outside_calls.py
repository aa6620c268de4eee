"""`OutsideCalls`: what a session sends to its client that belongs to no request of the client's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError

from ..actor import Cell
from .back_channel import BackChannel
from .dispatch import notification
from .errors import NoStandingStream
from .protocol_state import wants_log
from .relay import reread_messages
from .session import CURRENT
from .snapshot import SessionSnapshot
from .standalone import Listened

if TYPE_CHECKING:
    from .exchange import Exchange
    from .session_kind import SessionKind

__all__ = ["OutsideCalls"]


class OutsideCalls:
    """The outbound channel of a session's connection: its standalone stream, which the edge keeps.

    A part of `SessionActor`, and not an object of its own, for there is one to each session in memory.
    """

    __slots__ = ("_back_channel", "_cell", "_kind", "_told", "listened", "snap")

    def __init__(self, kind: SessionKind, cell: Cell, snapshot: SessionSnapshot) -> None:
        self._kind = kind
        self._cell = cell
        self.snap = snapshot
        """As last saved (or, before the first save, as it will be)."""
        self.listened = Listened.NEVER
        self._told = 0
        """How much has been sent on the standalone stream that may not be durable yet."""
        self._back_channel: BackChannel | None = None

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification outside of any request. Dropped where no client has asked for the standalone stream."""
        if method == "notifications/message" and not self.wants_log(params):
            return
        streams, address = self._kind.streams, self._cell.address
        message = notification(method, params)
        while not streams.publish(address, message):
            if self.listened is not Listened.PERHAPS:
                return
            if not await streams.wake(address):
                # Who comes back is told to read everything again.
                self.listened = Listened.IN_VAIN
                return
        self._told += 1

    async def tell(self, method: str, params: dict[str, Any] | None) -> None:
        """`notify` for what the author wants his client to get, connected or not: it waits where nobody listens yet.

        Raises:
            NoStandingStream: The session was opened by handle.
        """
        if self.snap.origin != "handshake":
            raise NoStandingStream
        if method == "notifications/message" and not self.wants_log(params):
            return
        streams, address = self._kind.streams, self._cell.address
        if streams.standalone(address) is None:
            await streams.wake(address, begin=True)
            if self.listened is Listened.IN_VAIN:
                # Whoever comes back to a stream that is there is not told so any more.
                for message in reread_messages(self.snap.subscriptions):
                    streams.publish(address, message)
        self.listened = Listened.PERHAPS
        await self.notify(method, params)
        await self.settle()

    async def settle(self) -> None:
        """no-silent-loss: who is told that a turn is over may rely on what it has sent, also if this node dies now."""
        told = self._told
        if told:
            await self._kind.streams.settled(self._cell.address)
            if told == self._told:
                self._told = 0

    def wants_log(self, params: Mapping[str, Any] | None) -> bool:
        """Whether a log message is at or above the level that the client has set, if it has."""
        return wants_log(self.snap, params)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Ask the client on the stream of the call that asks, or outside of any call on the standalone one.

        The SDK sends so what it does not know the request of, as `roots/list` and `ping`.

        Raises:
            NoBackChannelError: There is no such call, and the client holds no standalone stream.
            MCPError: The client answered with an error, or not in time.
        """
        turn = CURRENT.get()
        if turn is not None and turn.id == self._cell.address.id:
            dispatch = turn.dispatch
            if dispatch is not None and dispatch.can_send_request:
                return await dispatch.send_raw_request(method, params, opts)
        stream: Exchange | None = self._kind.streams.standalone(self._cell.address)
        if stream is None:
            raise NoBackChannelError(method)
        return await self.questions().ask(stream, method, params, opts)

    def questions(self) -> BackChannel:
        """The session's questions to its client."""
        if self._back_channel is None:
            record = self._cell.record
            epoch = record.epoch if record is not None else 1
            self._back_channel = BackChannel(f"{epoch}-", self._kind.answer_timeout)
        return self._back_channel
