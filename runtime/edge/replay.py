"""`Replay`: events on their way from the event log to a client, which memory does not have any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from ...actors.session.reading import PORTION
from ...actors.session.wire import SERVER_BUSY, Refusal
from ..wire.refusals import Refused

__all__ = ["MAX_REPLAYED", "Replay", "Replays"]

MAX_REPLAYED: Final = 256 * 2**20
"""Bytes of all replays of a node together. One alone may be larger."""
_FULL: Final = Refusal(
    SERVER_BUSY,
    "Too much is being replayed to others; come back in a moment with the same Last-Event-ID",
    None,
    503,
    1.0,
)


class Replays:
    """Those of one node. bounded: whoever comes back and reads nothing holds what it is owed for a while."""

    def __init__(self, most: int = MAX_REPLAYED) -> None:
        self._most = most
        self.bytes = 0

    @contextmanager
    def of(self, stream: str, events: list[tuple[int, bytes]], *, beside: int = 0) -> Generator[Replay]:
        """The events of the stream of this name as it is now. `events` is emptied, so that what has gone out is let go
        of. `beside`: bytes that are held as well, until the end.

        Raises:
            Refused: There is no room.
        """
        size = sum(len(event) for _, event in events)
        if self.bytes and self.bytes + size + beside > self._most:
            raise Refused(_FULL)
        replay = Replay(self, stream, deque(events))
        events.clear()
        self.bytes += size + beside
        try:
            yield replay
        finally:
            replay.close()
            self.bytes -= beside


class Replay:
    """What is left of one."""

    __slots__ = ("_events", "_replays", "stream")

    def __init__(self, replays: Replays, stream: str, events: deque[tuple[int, bytes]]) -> None:
        self._replays = replays
        self._events = events
        self.stream = stream

    def portion(self) -> list[tuple[int, bytes]]:
        """What comes next, `PORTION` bytes or one event; empty when nothing is left."""
        portion: list[tuple[int, bytes]] = []
        size = 0
        while self._events and size < PORTION:
            portion.append(self._events.popleft())
            size += len(portion[-1][1])
        self._replays.bytes -= size
        return portion

    def close(self) -> None:
        """Let go of the rest. Idempotent."""
        self._replays.bytes -= sum(len(event) for _, event in self._events)
        self._events.clear()
