"""`PeerSession`: exactly-once delivery of frames, over a wire that loses, repeats, reorders and delays. Sans-I/O.

What is kept in order is each direction of each channel; small frames overtake the bulk of others before they get a
sequence number, never after. NATS loses next to nothing while it is connected, so recovery is built for rare single
losses (the oldest batch again when its time is over, then each next hole as soon as the last is filled) and for the one
case in which much is lost at once, a reconnect (everything again).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .batch import OVERHEAD, Batch, encode_batch
from .codec import encode_frame
from .counters import LinkCounters
from .errors import Unsendable
from .frames import LOOSE, Call, Frame, RequestBody
from .head_book import HeadBook
from .inbox import Inbox
from .outbox import Outbox, Waiting
from .seals import Seal

__all__ = ["BACKLOG", "MAX_BATCH", "PeerSession", "Sending"]

MAX_BATCH: Final = 128 * 1024
"""Bytes of a batch, at most."""
WINDOW: Final = 256 * 1024
"""Bytes that may be unacknowledged before bulk waits, so that a small frame never queues behind more than that."""
SMALL_EXTRA: Final = 256 * 1024
"""What small frames may have unacknowledged beyond the window."""
MAX_UNACKED: Final = 1024
"""Batches that may be unacknowledged."""
BACKLOG: Final = 1024 * 1024
"""Bytes that may wait for the window before whoever adds more should wait too."""
BURST: Final = 128 * 1024
"""Bytes of bulk that leave at once, so that small frames of both directions get their turn of the event loop."""
RETRY_MIN: Final = 0.2
RETRY_MAX: Final = 2.0
RETRY_SOON: Final = 0.05
"""After the wire has said that nobody was there."""


class Sending(NamedTuple):
    """A payload for the wire. `seq` 0: may be lost."""

    seq: int
    payload: bytes


class _Unacked:
    __slots__ = ("first_at", "frames", "payload", "sent_at", "transmissions", "undelivered")

    def __init__(self, payload: bytes, frames: list[Frame], now: float) -> None:
        self.payload = payload
        self.frames = frames
        self.first_at = self.sent_at = now
        self.transmissions = 0
        """How often it was handed to the wire."""
        self.undelivered = 0


class PeerSession:
    """One life of the path between two incarnations, seen from one end. `now` is monotonic seconds, of this end.

    Not safe to use after `broken` is set: its owner ends what depends on it.
    """

    def __init__(
        self,
        *,
        path: int,
        version: int,
        max_payload: int,
        seal: Seal,
        book: HeadBook | None = None,
        give_up: float = 30.0,
    ) -> None:
        """`seal`: of this end's batches. `give_up`: seconds after which an unacknowledged batch breaks the session."""
        self.path = path
        self.version = version
        self.room = min(max_payload, MAX_BATCH) - OVERHEAD
        """Encoded bytes of frames that fit a batch."""
        self.broken: str | None = None
        """Why nothing can be promised any more."""
        self.retransmitted = 0
        self._inbox = Inbox()
        self.more_now = False
        """Whether `take_batches` left bulk behind that may leave in the next iteration of the event loop."""
        self._book = HeadBook() if book is None else book
        self._seal = seal
        self._give_up = give_up
        self._outbox = Outbox()
        self._loose: list[bytes] = []
        self._next = 1
        self._unacked: dict[int, _Unacked] = {}
        """By sequence number, in its order."""
        self._in_flight = 0
        self._again: dict[int, None] = {}
        self._retry = RETRY_MIN
        self._retry_at: float | None = None
        self._recover = 0
        """Holes up to this sequence number are filled one after the other."""
        self._recover_since = 0.0

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent for the first time."""
        return self._outbox.backlog

    @property
    def has_room(self) -> bool:
        """Whether more may be added, or should wait until what is there has left."""
        return self._outbox.backlog < BACKLOG

    @property
    def in_flight(self) -> int:
        """Bytes sent and not acknowledged."""
        return self._in_flight

    def speak(self, version: int) -> None:
        """Write another wire version from now on. What was sent already stays as it is."""
        if version != self.version:
            self.version = version
            self._outbox.encode_anew(version, self._book)

    def send(self, frame: Frame) -> None:
        """`frame` leaves with one of the next batches.

        Raises:
            Unsendable: It does not fit a batch, or cannot be packed. It is not sent.
        """
        encoded = encode_frame(frame, self.version, self._book)
        if type(frame) in LOOSE:
            self._loose.append(encoded)
            return
        if len(encoded) > self.room:
            raise _too_large(frame, len(encoded), self.room)
        self._outbox.add(frame, encoded)

    def drop(self, lane: int) -> bool:
        """Do not send what waits of a lane (see `lane_of`); whether the channel's call was among it."""
        return self._outbox.drop(lane)

    def has_work(self) -> bool:
        """Whether `take_batches` would have something that need not wait for a timer or an acknowledgement."""
        return bool(self._outbox.backlog or self._loose or self._again or self._inbox.ack_now)

    def take_batches(self, now: float) -> list[Sending]:
        """What is to be published now."""
        sendings: list[Sending] = []
        if self._loose:
            loose, self._loose = self._loose, []
            sendings.append(Sending(0, self._encode(0, loose)))
        if self._again:
            again, self._again = self._again, {}
            for seq in again:
                entry = self._unacked.get(seq)
                if entry is not None:
                    entry.sent_at = now
                    self.retransmitted += 1
                    sendings.append(Sending(seq, entry.payload))
        bulk_until = min(self._in_flight + BURST, WINDOW)
        while self._outbox.backlog and len(self._unacked) < MAX_UNACKED and self._in_flight < WINDOW + SMALL_EXTRA:
            waiting = self._outbox.take(self.room, bulk=self._in_flight < bulk_until)
            if not waiting:
                break
            sendings.append(self._first_sending(waiting, now))
        self.more_now = self._outbox.backlog > 0 and bulk_until <= self._in_flight < WINDOW
        inbox = self._inbox
        if inbox.ack_now or (inbox.ack_at is not None and inbox.ack_at <= now):
            # What went again carries the acknowledgement of its time, so it does not count here.
            sendings.append(Sending(0, self._encode(0, [])))
        return sendings

    def farewell(self) -> bytes:
        """A payload of the path's next life: tells the peer that this one is over."""
        return encode_batch(self.version, self.path + 1, 0, 0, [], self._seal)

    def on_batch(self, batch: Batch, now: float) -> list[Frame]:
        """The frames that may be acted on now that `batch` has come: its own, those that waited for it, or none."""
        if batch.ack:
            self._on_ack(batch.ack, now)
        return batch.frames if batch.seq == 0 else self._inbox.take(batch, now)

    def next_deadline(self) -> float | None:
        """When to call `on_timer` at the latest; None: not at all."""
        ack_at = self._inbox.ack_at
        if self._retry_at is None or ack_at is None:
            return ack_at if self._retry_at is None else self._retry_at
        return min(self._retry_at, ack_at)

    def on_timer(self, now: float) -> None:
        """Time has passed; call `take_batches` then."""
        ack_at = self._inbox.ack_at
        if ack_at is not None and ack_at <= now:
            self._inbox.ack_now = True
        if self._retry_at is None or self._retry_at > now:
            return
        seq, oldest = next(iter(self._unacked.items()))
        if now - oldest.first_at >= self._give_up:
            self.broken = f"a batch was not acknowledged for {now - oldest.first_at:.0f} s"
            return
        self._again[seq] = None
        self._recover, self._recover_since = self._next - 1, now
        self._retry = min(self._retry * 2, RETRY_MAX)
        self._retry_at = now + self._retry

    def on_reconnect(self, now: float) -> None:
        """The wire was interrupted: what is not acknowledged goes again, at once."""
        self._again = dict.fromkeys(self._unacked)
        if self._unacked:
            self._retry = RETRY_MIN
            self._retry_at = now + self._retry

    def on_handed(self, seq: int) -> None:
        """What `take_batches` gave for `seq` is about to be handed to the wire."""
        entry = self._unacked.get(seq)
        if entry is not None:
            entry.transmissions += 1

    def on_unsent(self, seq: int) -> None:
        """The wire did not take what it was handed for `seq`."""
        entry = self._unacked.get(seq)
        if entry is not None:
            entry.transmissions -= 1

    def on_undelivered(self, seq: int, now: float) -> None:
        """One transmission of `seq` surely reached nobody."""
        entry = self._unacked.get(seq)
        if entry is not None:
            entry.undelivered += 1
            self._retry_at = min(now + RETRY_SOON, self._retry_at or now + RETRY_SOON)

    def undelivered(self) -> set[int]:
        """Channels of ours whose call surely never arrived whole.

        Frames are acted on in order. So behind a batch that never arrived nothing was, whatever became of it.
        """
        channels: set[int] = set()
        never_arrived = False
        for entry in self._unacked.values():
            never_arrived = never_arrived or entry.undelivered >= entry.transmissions
            if never_arrived:
                channels.update(_calls_completed(entry.frames))
        channels.update(_calls_completed([frame for frame, _ in self._outbox]))
        return channels

    def count_into(self, counters: LinkCounters) -> None:
        """Add what this session has counted."""
        counters.retransmitted += self.retransmitted
        counters.duplicates += self._inbox.duplicates
        counters.reordered += self._inbox.reordered
        counters.overflowed += self._inbox.overflowed

    def _first_sending(self, waiting: list[Waiting], now: float) -> Sending:
        seq = self._next
        self._next += 1
        payload = self._encode(seq, [encoded for _, encoded in waiting])
        self._unacked[seq] = _Unacked(payload, [frame for frame, _ in waiting], now)
        self._in_flight += len(payload)
        if self._retry_at is None:
            self._retry_at = now + self._retry
        return Sending(seq, payload)

    def _encode(self, seq: int, frames: list[bytes]) -> bytes:
        self._inbox.acknowledged()
        return encode_batch(self.version, self.path, seq, self._inbox.received, frames, self._seal)

    def _on_ack(self, ack: int, now: float) -> None:
        if ack >= self._next:
            self.broken = f"the peer acknowledges batch {ack}, but {self._next - 1} were sent"
            return
        unacked = self._unacked
        progress = False
        while unacked and (seq := next(iter(unacked))) <= ack:
            self._in_flight -= len(unacked.pop(seq).payload)
            progress = True
        if not progress:
            return
        self._retry = RETRY_MIN
        if not unacked:
            self._retry_at = None
            return
        self._retry_at = now + self._retry
        seq, oldest = next(iter(unacked.items()))
        if seq <= self._recover and oldest.sent_at < self._recover_since:
            self._again[seq] = None


def _calls_completed(frames: list[Frame]) -> set[int]:
    return {frame.channel for frame in frames if isinstance(frame, (Call, RequestBody)) and not frame.more}


def _too_large(frame: Frame, size: int, room: int) -> Unsendable:
    what = "the head of a call" if isinstance(frame, Call) else f"a {type(frame).__name__} frame"
    return Unsendable(f"{what} takes {size} bytes, but {room} fit what NATS carries at once; send smaller headers")
