"""`Settlements`: paths whose peers are gone, until it is known which of their calls have not run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from ...actors.clock import Clock, within
from ...actors.task_owner import TaskOwner
from .batch import Batch
from .path import Path
from .wire import Wire

__all__ = ["LAST_WORDS", "Settlements", "Settling"]

LAST_WORDS: Final = 2.0
"""Seconds that a peer which leaves, and does not listen any more, has to say which calls it has not run, before they
are in doubt. Its farewell comes last."""


class Settling:
    """A path whose peer is gone, until all that may still be heard of its calls is."""

    __slots__ = ("_heard_out", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._heard_out = asyncio.Event()

    def on_batch(self, batch: Batch, now: float) -> None:
        """The peer has said something more: perhaps the last that a call of ours waits for."""
        self.path.on_batch(batch, now)
        if not self.path.asks:
            self._heard_out.set()

    def heard_out(self) -> None:
        """The peer says nothing more of this path, or nobody waits for that any longer."""
        self._heard_out.set()

    async def until_heard_out(self) -> None:
        """Until no call of ours waits for what the peer may say, or `heard_out`."""
        await self._heard_out.wait()


class Settlements:
    """Owned by the link, which has forgotten these paths already: at most `most`."""

    def __init__(self, wire: Wire, clock: Clock, tasks: TaskOwner, *, most: int) -> None:
        self._wire = wire
        self._clock = clock
        self._tasks = tasks
        self._most = most
        self._leaving: dict[str, None] = {}
        self._patient = True
        self.under_way: dict[tuple[str, int], Settling] = {}
        """By peer, and the number of the path's life."""

    @property
    def full(self) -> bool:
        """Whether another path must end at once, with what is known of its calls now."""
        return len(self.under_way) >= self._most

    def peer_leaves(self, peer: str) -> None:
        """This incarnation stops, and says which calls it has not run before it is gone. At most `most` are known."""
        if len(self._leaving) >= self._most and peer not in self._leaving:
            del self._leaving[next(iter(self._leaving))]
        self._leaving[peer] = None

    def peer_gone(self, peer: str) -> None:
        """This incarnation is no more."""
        self._leaving.pop(peer, None)

    def begin(self, path: Path, why: str, *, last_words: bool) -> None:
        """`end` the path, because of `why`, when what has come from its peer has been read; with `last_words`, when a
        peer that is known to leave has said all, or the time for that is over.
        """
        path.settling = True
        settling = self.under_way[path.peer, path.session.path] = Settling(path)
        self._tasks.spawn(self._end(settling, why, last_words))

    def wait_no_more(self) -> None:
        """From now on no peer's last words are waited for."""
        self._patient = False

    def release(self) -> None:
        """Nor are those any longer that are waited for now."""
        for settling in self.under_way.values():
            settling.heard_out()

    async def _end(self, settling: Settling, why: str, last_words: bool) -> None:
        path = settling.path
        try:
            await self._wire.catch_up()
            if last_words and path.peer in self._leaving and self._patient:
                path.end_undelivered(why)
                if path.asks:
                    with suppress(TimeoutError):
                        await within(self._clock, LAST_WORDS, settling.until_heard_out())
        finally:
            del self.under_way[path.peer, path.session.path]
            path.end(why)
