"""`InboundCall`: a forwarded call at the end that serves, in the shape of ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from .channel import OwnerChannel
from .errors import Unsendable
from .frames import Failed
from .head import CallHead
from .wakeup import Wakeup

if TYPE_CHECKING:
    from .path import Path

__all__ = ["InboundCall"]


class InboundCall:
    """One call that a peer has forwarded here. Its request is complete when it is served.

    One task at a time may `send`.
    """

    __slots__ = ("_body", "_gone", "_path", "_sending", "_wakeup", "channel", "head")

    def __init__(self, path: Path, channel: OwnerChannel, head: CallHead) -> None:
        self._path = path
        self.channel = channel
        self.head = head
        """What the edge knows of the request. `budget` counts from when the call had arrived whole."""
        self._wakeup: Wakeup | None = None
        """Made for the first response that has to wait."""
        self._body: bytes | None = channel.take_body()
        self._gone: asyncio.Event | None = None
        self._sending = False

    @property
    def peer(self) -> str:
        """The incarnation that forwarded the call."""
        return self._path.peer

    @property
    def over(self) -> bool:
        """Whether nothing that is sent goes anywhere any more: the response is complete, or nobody waits for it."""
        return self.channel.ended

    async def receive(self) -> dict[str, Any]:
        """The request in one `http.request`; then, once the caller is gone or has its response, `http.disconnect`.

        Cancellation leaves nothing behind.
        """
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.over:
            if self._gone is None:
                self._gone = asyncio.Event()
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass on `http.response.start` or `http.response.body`.

        Waits while the caller reads too slowly; returns at once when nobody reads any more.

        Raises:
            Unsendable: The headers do not fit a frame.
            RuntimeError: The order of messages is wrong.
            ValueError: Another type of message.

        Cancelled, it has sent a part of the body or none of it: the response cannot be completed any more.
        """
        channel = self.channel
        if channel.ended:
            return
        kind = message["type"]
        if kind == "http.response.body":
            body = message.get("body", b"")
            more = message.get("more_body", False)
            path = self._path
            if not body and more:
                # Says nothing, but asks for what is held.
                self.flush()
            elif (
                type(body) is bytes
                and len(body) <= path.part_size
                and len(body) <= channel.credit
                and path.session.has_room
                and not self._sending
            ):
                # Nearly every response, so it is worth a way of its own.
                path.send(channel.next_response(body, len(body), more), last=not more)
                if not more:
                    self.ended()
            else:
                await self._send_body(body, more)
        elif kind == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            raise ValueError(f"a forwarded call cannot send {kind!r}, only http.response.start and http.response.body")

    def refuse(self, reason: str, data: Mapping[str, Any] | None = None) -> None:
        """Tell the caller that nothing ran: its `forward` raises `NotRun(reason, data)`.

        Raises:
            RuntimeError: The response has begun.
            Unsendable: `data` does not fit a frame, or holds what msgpack cannot carry; the call can still be answered.
        """
        if self.channel.gone:
            return
        self._path.send(self.channel.refuse(reason, dict(data or {})))
        self.channel.finish()
        self._path.count_refusal()
        self.ended()

    def flush(self) -> None:
        """Let the response begin, if it was to begin with its first piece of body. The link calls this."""
        start = self.channel.flush()
        if start is not None:
            self._path.send(start)

    def give_up(self, reason: str) -> None:
        """The handler has ended: if its response is not complete, it never will be. The link calls this."""
        failed: Failed | None = self.channel.give_up(reason)
        if failed is not None:
            self._path.session.drop(-self.channel.id)
            self._path.send(failed)
            self.ended()

    def caller_gone(self) -> None:
        """Nobody waits for the response any more. The link calls this."""
        self.channel.caller_gone()
        self.ended()

    def ended(self) -> None:
        """Nothing more will be sent: whoever waits, waits no more."""
        self._path.forget_inbound(self)
        if self._gone is not None:
            self._gone.set()
        self.wake()

    def wake(self) -> None:
        """A response that waits may go on. The link calls this."""
        if self._wakeup is not None:
            self._wakeup.wake()

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        lines = [(name, value) for name, value in headers]
        size = sum(map(len, chain.from_iterable(lines))) + 10 * len(lines)
        if size > self._path.part_size:
            raise Unsendable(f"response headers of {size} bytes, but {self._path.part_size} can cross between nodes")
        self.channel.start(status, lines)
        self._path.hold(self)

    async def _send_body(self, body: bytes | bytearray | memoryview, more: bool) -> None:
        if self._sending:
            raise RuntimeError("two tasks send the response of one call at the same time")
        channel, path = self.channel, self._path
        wakeup = self._wakeup = self._wakeup or Wakeup()
        rest = memoryview(bytes(body))
        self._sending = True
        try:
            while not channel.ended:
                size = min(len(rest), path.part_size, channel.credit)
                if not path.session.has_room:
                    path.room_wanted[wakeup] = None
                    await wakeup
                elif size == 0 and rest:
                    await wakeup
                else:
                    path.send(channel.next_response(bytes(rest[:size]), size, more or size < len(rest)))
                    rest = rest[size:]
                    if not rest:
                        break
            if channel.ended:
                self.ended()
        finally:
            self._sending = False
            if path.room_wanted:
                path.room_wanted.pop(wakeup, None)
                path.offer_room()
