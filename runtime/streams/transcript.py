"""`Transcript`: how far the event log has one stream of this node's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ...actors.session.exchange import Exchange
from ...actors.session.wire import OUTCOME_UNKNOWN, error_message
from ...stores import Address

__all__ = ["Batch", "Transcript"]

BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 512 * 1024
"""Of one append; a single event may be larger."""


class Batch:
    """What one append writes."""

    __slots__ = ("ends", "events", "first", "upto")

    def __init__(self, first: int, events: list[bytes], upto: int, *, ends: bool) -> None:
        self.first = first
        self.events = events
        self.upto = upto
        """The number of the exchange's message that it ends with."""
        self.ends = ends


class Transcript:
    """One stream's way into the log. Written by `StreamLog`; the exchange's `logged` follows it."""

    __slots__ = (
        "address",
        "anew",
        "done",
        "exchange",
        "head",
        "name",
        "over",
        "queued",
        "renew",
        "running",
        "stretch",
        "waiting",
        "writer",
    )

    def __init__(
        self,
        address: Address,
        name: str,
        exchange: Exchange,
        writer: str,
        head: Callable[[], bytes],
        *,
        done: int,
        anew: bool,
        renew: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self.name = name
        """What the log knows the stream by."""
        self.exchange = exchange
        self.writer = writer
        self.head = head
        self.done = done
        """The number of the newest message that the log has; -1 while it does not have the stream at all."""
        self.anew = anew
        """What the log may have under this name is another stretch of the stream, and goes first."""
        self.renew = renew
        """Called where events are about to leave that the log lacks. None: the stream may simply end early there."""
        self.stretch = 0
        """How often it has begun anew."""
        self.queued = False
        self.running = False
        self.over = False
        """Nothing more of it is to be logged."""
        self.waiting: list[asyncio.Future[None]] = []
        """Who waits for news of it."""

    def tell(self) -> None:
        """There is news for those who wait."""
        for told in self.waiting:
            if not told.done():
                told.set_result(None)
        self.waiting.clear()

    @property
    def unheard(self) -> list[bytes]:
        """The messages that neither the log nor a reader has."""
        exchange = self.exchange
        return exchange.between(max(self.done + 1, exchange.read + 1, exchange.oldest), exchange.last)

    def begin_anew(self) -> None:
        """What comes is another stretch of the stream, in place of what the log has."""
        self.anew = True
        self.done = -1
        self.stretch += 1

    @property
    def standalone(self) -> bool:
        return self.exchange.request_id is None

    @property
    def due(self) -> bool:
        """Whether there is something to write."""
        exchange = self.exchange
        return not self.over and (max(self.done, 0) < exchange.last or self._ends)

    @property
    def _ends(self) -> bool:
        """The stream is over. Of a standalone one no more is said than that it is there."""
        exchange = self.exchange
        if not exchange.finished:
            return False
        if self.standalone:
            return self.done < 0
        return exchange.outcome is not None or (
            exchange.elsewhere is not None and (self.done >= 0 or self.queued or self.running)
        )

    @property
    def broken(self) -> bool:
        """Messages that the log lacks are kept no more: what follows cannot be appended."""
        return self.exchange.oldest > max(self.done, 0) + 1

    def batch(self) -> Batch:
        """What comes next. Not for one that is `broken`, but for a stretch that begins anew."""
        exchange = self.exchange
        first = exchange.oldest if self.anew else max(self.done, 0) + 1
        upto = min(exchange.last, first + BATCH_EVENTS - 1)
        events = exchange.between(first, upto)
        size = 0
        for count, event in enumerate(events):
            size += len(event)
            if count and size > BATCH_BYTES:
                del events[count:]
                upto = first + count - 1
                break
        ends = exchange.finished and not self.standalone and upto == exchange.last
        if ends and exchange.outcome is None:
            # no-silent-loss: the request was sent on to another node, whose answer goes out under a name of its own.
            # Whoever comes back for this one has lost its connection just then.
            events.append(error_message(exchange.request_id, OUTCOME_UNKNOWN))
        return Batch(first, events, upto, ends=ends)
