"""`Outbox`: frames that wait for a batch. Small ones go first, and the bulk of different channels takes turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from .batch import MAX_FRAMES
from .codec import encode_frame
from .frames import Body, Call, Frame, RequestBody, Start
from .head_book import HeadBook

__all__ = ["Outbox", "Waiting", "lane_of"]

SMALL: Final = 4096
"""Encoded bytes up to which a frame goes before the bulk."""
SMALL_BATCH: Final = 64
"""Small frames in one batch, at most: one end works on a batch while the other works on the next, where one large batch
would have them take turns."""

Waiting = tuple[Frame, bytes]
"""A frame, and the same encoded."""


def lane_of(frame: Frame) -> int | None:
    """What keeps its order: each direction of each channel. None for frames that may overtake everything."""
    match frame:
        case Call() | RequestBody():
            return frame.channel
        case Start() | Body():
            return -frame.channel
        case _:
            return None


class Outbox:
    """Sans-I/O. Its bound is its user's: `backlog` tells how many bytes wait."""

    __slots__ = ("_bulk", "_small", "_turns", "backlog")

    def __init__(self) -> None:
        self._small: deque[Waiting] = deque()
        self._bulk: dict[int, deque[Waiting]] = {}
        self._turns: deque[int] = deque()
        """Lanes of `_bulk` in the order of their turns; one that was dropped is skipped when its turn comes."""
        self.backlog = 0

    def add(self, frame: Frame, encoded: bytes) -> None:
        """`frame` waits for a batch."""
        self.backlog += len(encoded)
        waiting = (frame, encoded)
        if self._bulk or len(encoded) > SMALL:
            lane = lane_of(frame)
            if lane is not None:
                queue = self._bulk.get(lane)
                if queue is not None:
                    queue.append(waiting)
                    return
                if len(encoded) > SMALL:
                    self._bulk[lane] = deque((waiting,))
                    self._turns.append(lane)
                    return
        self._small.append(waiting)

    def drop(self, lane: int) -> bool:
        """Forget the bulk of a lane; whether its call was among that, so that the peer knows nothing of the channel."""
        queue = self._bulk.pop(lane, None)
        if queue is None:
            return False
        self._turns.remove(lane)
        self.backlog -= sum(len(encoded) for _, encoded in queue)
        return isinstance(queue[0][0], Call)

    def take(self, room: int, *, bulk: bool) -> list[Waiting]:
        """Frames for one batch of at most `room` bytes; without `bulk`, the small ones only."""
        taken: list[Waiting] = []
        small = self._small
        while small and len(taken) < SMALL_BATCH and len(small[0][1]) <= room:
            waiting = small.popleft()
            room -= len(waiting[1])
            taken.append(waiting)
        if bulk and not small:
            while self._turns and len(taken) < MAX_FRAMES:
                lane = self._turns[0]
                queue = self._bulk[lane]
                if len(queue[0][1]) > room:
                    break
                waiting = queue.popleft()
                room -= len(waiting[1])
                taken.append(waiting)
                self._turns.popleft()
                if queue:
                    self._turns.append(lane)
                else:
                    del self._bulk[lane]
        self.backlog -= sum([len(encoded) for _, encoded in taken])
        return taken

    def encode_anew(self, version: int, book: HeadBook) -> None:
        """Another wire version is spoken from now on."""
        self._small = deque((frame, encode_frame(frame, version, book)) for frame, _ in self._small)
        for lane, queue in self._bulk.items():
            self._bulk[lane] = deque((frame, encode_frame(frame, version, book)) for frame, _ in queue)
        self.backlog = sum(len(encoded) for _, encoded in self)

    def __iter__(self) -> Iterator[Waiting]:
        yield from self._small
        for queue in self._bulk.values():
            yield from queue

    def __bool__(self) -> bool:
        return bool(self._small or self._bulk)
