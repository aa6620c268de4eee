"""`Inbox`: puts batches in order, drops what has come before, and knows what is owed an acknowledgement. Sans-I/O."""

from __future__ import annotations

from typing import Final

from .batch import Batch
from .frames import Frame

__all__ = ["ACK_DELAY", "MAX_EARLY", "Inbox"]

MAX_EARLY: Final = 1024
MAX_EARLY_BYTES: Final = 1024 * 1024
"""Batches, and their bytes, kept while one before them is missing; what comes beyond is dropped, and comes again."""
ACK_DELAY: Final = 0.02
"""Seconds in which something may go the other way and take the acknowledgement along."""
ACK_BYTES: Final = 64 * 1024
"""Bytes after which an acknowledgement is not delayed."""


class Inbox:
    """The receiving half of a session."""

    __slots__ = (
        "_early",
        "_early_bytes",
        "_owed_bytes",
        "ack_at",
        "ack_now",
        "duplicates",
        "overflowed",
        "received",
        "reordered",
    )

    def __init__(self) -> None:
        self.received = 0
        """The last batch that has come with all before it: what an acknowledgement says."""
        self.ack_at: float | None = None
        """When an acknowledgement is due by itself."""
        self.ack_now = False
        """Whether the sender should hear at once: it has lost something, or is about to run out of its window."""
        self.duplicates = self.reordered = self.overflowed = 0
        self._early: dict[int, Batch] = {}
        self._early_bytes = 0
        self._owed_bytes = 0

    def take(self, batch: Batch, now: float) -> list[Frame]:
        """The frames that may be acted on now that `batch`, which has a sequence number, has come."""
        seq = batch.seq
        if seq != self.received + 1:
            self._set_aside(batch)
            return []
        self.received = seq
        if self.ack_at is None:
            self.ack_at = now + ACK_DELAY
        self._owed_bytes += batch.size
        if self._owed_bytes >= ACK_BYTES:
            self.ack_now = True
        if not self._early:
            return batch.frames
        self.ack_now = True
        frames = list(batch.frames)
        while (early := self._early.pop(self.received + 1, None)) is not None:
            self.received += 1
            self._early_bytes -= early.size
            frames += early.frames
        return frames

    def acknowledged(self) -> None:
        """A batch with the newest acknowledgement leaves."""
        self.ack_at = None
        self.ack_now = False
        self._owed_bytes = 0

    def _set_aside(self, batch: Batch) -> None:
        self.ack_now = True
        if batch.seq <= self.received or batch.seq in self._early:
            self.duplicates += 1
        elif self._early_bytes + batch.size > MAX_EARLY_BYTES or len(self._early) >= MAX_EARLY:
            self.overflowed += 1
        else:
            self.reordered += 1
            self._early[batch.seq] = batch
            self._early_bytes += batch.size
