"""`OneReader`: messages that are read by one edge at a time, which may leave and come back."""

from __future__ import annotations

import asyncio
from typing import Final

from .backlog import Backlog

__all__ = ["OneReader"]

KEPT_READ: Final = 64
"""Messages of a standalone stream that are kept though they have been read; a log has the others."""
PORTION: Final = 256 * 1024
"""Bytes taken at once, of more than one message: what a reader that does not read keeps in memory beside the stream."""


class OneReader(Backlog):
    """The reader's side of an exchange. `generation` tells an edge that another has taken over."""

    __slots__ = (
        "_cut_early",
        "_logged",
        "_standalone",
        "_waiter",
        "_writer",
        "attached",
        "delivered",
        "finished",
        "generation",
        "read",
    )

    def __init__(self, *, standalone: bool) -> None:
        """`standalone`: it never ends, and so it keeps but little of what has been read."""
        super().__init__()
        self.finished = False
        self.generation = 0
        self.attached = False
        """Whether somebody reads at present."""
        self.read = 0
        """The number of the last message that the present reader has taken."""
        self.delivered = False
        """It has gone out to its end, and nobody has come back for it since."""
        self._standalone = standalone
        self._logged: int | None = None
        self._cut_early = False
        self._waiter: asyncio.Future[bool] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def quiet(self) -> bool:
        """Nothing but the outcome, if that, has been written: it may go out as one JSON body."""
        return self._events is None and not self._cut_early

    @property
    def logged(self) -> int | None:
        """The number up to which messages may leave; -1 while not even the stream's id may, None without a log."""
        return self._logged

    @logged.setter
    def logged(self, number: int | None) -> None:
        self._logged = number
        self._wake()
        if self._writer is not None:
            self._wake_writer()

    @property
    def _ready(self) -> int:
        """The number of the newest message that may leave. A stream without any may end before the log has it."""
        return self.last if self._logged is None else min(max(self._logged, 0), self.last)

    async def begun(self, generation: int) -> None:
        """Return when the stream's id may leave, or another reader waits in place of this one."""
        while self._logged == -1 and (generation == self.generation or not self.attached):
            await self._news()

    async def _news(self) -> bool:
        """Wait to be woken; True if by nothing but silence."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            return await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None

    async def first(self) -> None:
        """Return when there is something to read, the stream is finished, or `nudge` is called."""
        if self.finished or not self.quiet:
            return
        await self._news()

    def nudge(self) -> None:
        """Let whoever waits in `first` go on."""
        self._wake()

    def attach(self, after: int) -> int:
        """Become the reader, of the messages after number `after`; the generation to pass to `next`."""
        self.generation += 1
        self.attached = True
        self.read = after
        self.delivered = False
        self._wake()
        generation = self.generation
        if self._cut_early:
            self._cut_early = False
            self.cut()
        return generation

    def detach(self, generation: int) -> None:
        """The reader that attached as `generation` is gone. The stream goes on without one."""
        if generation == self.generation:
            self.attached = False
            self._wake_writer()

    async def next(self, generation: int) -> list[tuple[int, bytes]] | None:
        """The messages after those already read, with their numbers; [] upon `break_silence`.

        None when there is no more to come for this reader: the stream is finished and read to its end, another reader
        has taken over, or the messages it has yet to read were dropped.
        """
        silent = False
        while True:
            if generation != self.generation or self.read + 1 < self._first:
                return None
            ready = self._ready
            if self.read < ready:
                number = self.read + 1
                batch = self.between(number, ready)
                if self._bytes > PORTION:
                    batch = _portion(batch)
                self.read += len(batch)
                if self._standalone:
                    self._forget_read()
                self._wake_writer()
                return list(enumerate(batch, number))
            if self.finished and ready == self.last:
                return None
            if silent:
                return []
            silent = await self._news()

    def break_silence(self, generation: int) -> None:
        """Let the reader that attached as `generation`, if it waits in `next`, go on for a moment."""
        if generation == self.generation:
            self._wake(silent=True)

    def _forget_read(self) -> None:
        self.forget(self.read + 1 - KEPT_READ - self._first)

    def cut_from(self, generation: int) -> None:
        """`cut`, if the present reader is the one that attached as `generation`."""
        if generation == self.generation:
            self.cut()

    def cut(self) -> None:
        """Take the stream from its present reader, whose connection then closes. The stream itself goes on.

        Before the first reader: it becomes a stream at once, and that reader gets no more than an id to come back with.
        """
        if self.generation == 0 and not self.finished:
            self._cut_early = True
        self.attached = False
        self.generation += 1
        self._wake()
        self._wake_writer()

    def _wake(self, *, silent: bool = False) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(silent)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        self._writer = None


def _portion(batch: list[bytes]) -> list[bytes]:
    size = 0
    for count, message in enumerate(batch, 1):
        size += len(message)
        if size >= PORTION:
            return batch[:count]
    return batch
