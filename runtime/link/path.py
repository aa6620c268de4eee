"""`Path`: one life of the path to a peer. Binds its session to its calls, and to time."""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

from ...actors.clock import Clock, Timer
from .batch import Batch
from .calls import CallHost, Calls
from .channel import PART
from .frames import Body, Failed, Frame, NotRunFrame, Ping, Start
from .inbound import InboundCall
from .inbox import ACK_DELAY
from .outbound import OutboundCall
from .session import BACKLOG, PeerSession, Sending
from .wakeup import Wakeup

__all__ = ["Path", "PathHost"]

FRESH: Final = 0.1
"""Seconds since the peer was last heard after which it is asked whether it lives before it gets a call."""
PING_EVERY: Final = 0.25
"""Seconds of a peer's silence after which it is asked, while a call waits for its answer."""


ANSWERS: Final = frozenset((Start, Body, NotRunFrame, Failed))
"""What still counts when the peer is gone."""


class PathHost(CallHost, Protocol):
    """What a path asks of its link."""

    clock: Clock

    def mark(self, path: Path, *, last: bool = False) -> None:
        """`path` has something to publish. See `Publisher.mark`."""
        ...

    def lost(self, path: Path, why: str) -> None:
        """`path` cannot go on: forget it and `end` it."""
        ...

    def settle(self, path: Path, why: str, *, last_words: bool = False) -> None:
        """The peer of `path` is gone: forget it, and `end` it once it is known which of its calls reached nobody.

        `last_words`: it may be about to say what it has not run: what is in doubt is so only when it has had the time.
        """
        ...


class Path:
    """Its owner calls `end` exactly once; after that nothing it is told has an effect."""

    __slots__ = (
        "_calls",
        "_doubted_since",
        "_heard_at",
        "_held",
        "_host",
        "_patience",
        "_pinged_at",
        "_timer",
        "_timer_at",
        "knocking",
        "over",
        "part_size",
        "peer",
        "replaced",
        "room_wanted",
        "session",
        "settling",
    )

    def __init__(self, host: PathHost, peer: str, session: PeerSession, *, patience: float) -> None:
        """`patience`: seconds that a silent peer is waited for before it is taken for gone."""
        self.peer = peer
        self.session = session
        self.part_size = min(PART, session.room // 2 - 128)
        """Bytes of body in one frame, at most: two fit a batch, or one and a large head."""
        self.over = False
        self.replaced = False
        """Whether it is over because the peer has begun another life of it, and so is there."""
        self.settling = False
        """Whether it is about to `end`, and what it would say stays unsaid."""
        self.knocking: dict[Wakeup, None] = {}
        """Who waits for the peer to be heard."""
        self.room_wanted: dict[Wakeup, None] = {}
        """Who waits for the session's backlog to shrink."""
        self._host = host
        self._patience = patience
        self._calls = Calls(self, host)
        self._held: list[InboundCall] = []
        """Their response has begun, perhaps with a frame that still has room for a body."""
        self._heard_at = self._pinged_at = -inf
        self._doubted_since = inf
        """Since when the peer may have given this path up without our hearing of it."""
        self._timer: Timer | None = None
        self._timer_at = inf

    @property
    def idle(self) -> bool:
        """Whether no call uses this path."""
        return not self._calls

    @property
    def asks(self) -> bool:
        """Whether calls of ours wait for the peer."""
        return self._calls.asks

    def now(self) -> float:
        """Monotonic seconds."""
        return self._host.clock.monotonic()

    def is_fresh(self, now: float) -> bool:
        """Whether the peer was heard a moment ago."""
        return now - self._heard_at <= FRESH

    def open(self, body: bytes) -> OutboundCall:
        """A call to the peer; its driver calls `leave` on it."""
        call = self._calls.open(body)
        if self._timer is None:
            self._arm(self.now())
        return call

    def forget(self, call: OutboundCall) -> None:
        """`call` is over."""
        self._calls.forget(call)

    def forget_inbound(self, call: InboundCall) -> None:
        """The response of `call` is complete, or nobody waits for it."""
        self._calls.forget_inbound(call)

    def count_refusal(self) -> None:
        """A handler has refused a call."""
        self._host.counters.refused += 1

    def knock(self, now: float) -> None:
        """Ask the peer whether it lives, unless it was asked a moment ago."""
        if self._pinged_at <= self._heard_at or now >= self._pinged_at + PING_EVERY:
            self._ping(now)

    def send(self, frame: Frame, *, last: bool = False) -> None:
        """`frame` leaves with what else this iteration of the event loop brings; at once if it is the `last` of its
        call in this direction, and nothing else is likely to come.

        Raises:
            Unsendable: It does not fit.
        """
        if not self.over:
            self.session.send(frame)
            if not self.settling:
                self._host.mark(self, last=last)

    def hold(self, call: InboundCall) -> None:
        """The response of `call` has begun; should nothing follow at once, its beginning leaves alone."""
        if not self._held and not self.settling:
            self._host.mark(self)
        self._held.append(call)

    def offer_room(self) -> None:
        """Wake as many as may add to the backlog."""
        if self.room_wanted:
            wanted = (BACKLOG - self.session.backlog + self.part_size - 1) // self.part_size
            for wakeup in list(self.room_wanted)[: max(wanted, 0)]:
                del self.room_wanted[wakeup]
                wakeup.wake()

    def flush(self, now: float) -> list[Sending]:
        """What is to be published now."""
        if self._held:
            held, self._held = self._held, []
            for call in held:
                if call.channel.held:
                    call.flush()
        sendings = self.session.take_batches(now)
        self.offer_room()
        self._arm(now)
        return sendings

    def on_batch(self, batch: Batch, now: float) -> None:
        """The peer has spoken."""
        self._heard_at = now
        self._doubted_since = inf
        for wakeup in self.knocking:
            wakeup.wake()
        calls = self._calls
        for frame in self.session.on_batch(batch, now):
            if self.settling and type(frame) not in ANSWERS:
                continue
            fault = calls.on_frame(frame, now)
            if fault is not None:
                self._host.lost(self, fault)
            if self.over:
                return
        if self.session.broken is not None:
            self._host.lost(self, self.session.broken)
        elif self.settling:
            return
        elif self.session.has_work():
            self._host.mark(self)
        else:
            self._arm(now)

    def on_undelivered(self, seq: int, *, lost: bool) -> None:
        """A batch surely reached nobody. `lost`: which proves that the peer is gone."""
        now = self.now()
        self.session.on_undelivered(seq, now)
        if lost:
            self._host.settle(self, "it does not listen any more", last_words=True)
        else:
            self._arm(now)

    def on_reconnect(self, now: float) -> None:
        """The wire was interrupted."""
        self.session.on_reconnect(now)
        if self._calls:
            # Who wrote to us meanwhile was told that nobody is here, and has ended what we still wait for.
            self._doubted_since = now
        if self.knocking or self._calls:
            self._ping(now)
        self._host.mark(self)

    def end_undelivered(self, why: str) -> None:
        """End the calls that surely never arrived."""
        self._calls.end_undelivered(why, self.session.undelivered())

    def end(self, why: str) -> None:
        """This life of the path is over, and every call on it."""
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        self._calls.end(why, self.session.undelivered())
        self.session.count_into(self._host.counters)

    def _ping(self, now: float) -> None:
        self._pinged_at = now
        self._host.counters.pings += 1
        self.send(Ping(int(now * 1000) & 0xFFFFFFFF))

    def _deadline(self) -> float:
        deadline = self.session.next_deadline()
        when = inf if deadline is None else deadline
        return min(when, self._ping_due())

    @property
    def _waiting_since(self) -> float:
        """Since when the peer has owed us a word; infinite if it does not."""
        awaiting = self._calls.awaiting_since if self._calls.awaiting else inf
        return min(awaiting, self._doubted_since)

    def _ping_due(self) -> float:
        return max(self._heard_at, self._pinged_at, self._waiting_since) + PING_EVERY

    def _arm(self, now: float) -> None:
        """Have a timer that rings in time. One that rings early is left alone: moving it costs more than its ring."""
        timer_at = self._timer_at
        if timer_at <= now + ACK_DELAY:
            # Nothing that begins now is due before.
            return
        deadline = self.session.next_deadline()
        if (deadline is None or deadline >= timer_at) and self._heard_at + PING_EVERY >= timer_at:
            # Nor is a ping: the peer was heard of late.
            return
        when = self._deadline()
        if when < timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._host.clock.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, inf
        if self.over or self.settling:
            return
        now = self.now()
        self.session.on_timer(now)
        if self.session.broken is not None:
            self._host.lost(self, self.session.broken)
            return
        if self._waiting_since < inf:
            if now >= max(self._heard_at, self._waiting_since) + self._patience:
                self._host.lost(self, f"it has been silent for {self._patience:g} s")
                return
            if now >= self._ping_due():
                self._ping(now)
        if self.session.has_work():
            self._host.mark(self)
        self._arm(now)
