"""`Publisher`: all that a link says to the wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from ...actors.clock import Clock, Timer
from .counters import LinkCounters
from .path import Path
from .wakeup import Wakeup
from .wire import Letter, Wire, WireEvents

__all__ = ["Publisher"]

logger = logging.getLogger(__name__)

MAX_NOTES: Final = 4096
RETRY: Final = 1.0
RUSH: Final = 0.00005
"""Seconds; less than a call over the network takes, more than one of several takes that came together."""


class Publisher:
    """Publishes, once in an iteration of the event loop, what all paths have collected until then.

    It does so without waiting, and has its task do it where that is not possible: the wire is crowded, or interrupted.
    """

    def __init__(self, wire: Wire, counters: LinkCounters, clock: Clock, under_way: Callable[[], int]) -> None:
        """`under_way`: how many calls are, in both directions."""
        self._wire = wire
        self._counters = counters
        self._clock = clock
        self._under_way = under_way
        self._wakeup = Wakeup()
        self._marked: dict[Path, None] = {}
        self._turn: Timer | None = None
        """When what is marked is published."""
        self._published_at = 0.0
        self._unsent: list[tuple[Path, int, Letter]] = []
        """What could not be published without waiting."""
        self._notes: dict[str, bytes] = {}
        self._renamed: tuple[str, WireEvents] | None = None
        self._gathering = False
        """A batch is being acted on: what each of its frames causes leaves with what the others do."""
        self._others = False
        """That batch has more than one frame."""
        self._waiting = False
        """The task is at work; all else waits for it, so that nothing is overtaken."""
        self._stopped = False

    @property
    def renaming(self) -> bool:
        """Whether the wire still goes by the old name."""
        return self._renamed is not None

    def mark(self, path: Path, *, last: bool = False) -> None:
        """`path` has something to publish. `last`: of its call in this direction, so that it leaves at once if nobody
        is likely to add to it: it belongs to the only call under way, and the last time is not a moment ago, as where
        this process works off what has gathered while it had to wait.
        """
        self._marked[path] = None
        if self._gathering and (self._others or not last):
            return
        if last and self._alone():
            self.publish_now()
        elif self._turn is None and not self._gathering:
            self._turn = asyncio.get_running_loop().call_soon(self.publish_now)

    def gather(self, *, others: bool) -> None:
        """Publish nothing before `gathered`, but what is `last` of its call and alone; nor that if there are `others`,
        which may cause more of it.
        """
        self._gathering = True
        self._others = others

    def gathered(self, *, many: bool) -> None:
        """What is marked by now may leave. `many`: it is enough for a batch, so that it does so at once."""
        self._gathering = False
        if not self._marked:
            return
        if many or self._alone():
            self.publish_now()
        elif self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self.publish_now)

    def forget(self, path: Path) -> None:
        """Nothing of `path` is published any more."""
        self._marked.pop(path, None)

    def note(self, peer: str, payload: bytes) -> None:
        """Publish a word about paths that are over. It may be lost; only the last one for a peer counts."""
        if len(self._notes) < MAX_NOTES:
            self._notes[peer] = payload
            self._wakeup.wake()

    def rename(self, me: str, events: WireEvents) -> None:
        """Listen as `me`, once what was noted under the old name is published."""
        self._renamed = (me, events)
        self._wakeup.wake()

    def stop(self) -> None:
        """`run` returns when all that waits now is published."""
        self._stopped = True
        self._wakeup.wake()

    def publish_now(self) -> None:
        """Publish what is marked, without the turn of the event loop that lets others add to it.

        What cannot be published without waiting is left to the task. Never raises.
        """
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._waiting or self._unsent or self._notes or self._renamed is not None or self._wire.crowded:
            self._wakeup.wake()
            return
        try:
            self._publish_marked()
        except Exception:
            # Whatever it is, what comes after must not wait for ever. What was lost goes again in time.
            logger.exception("publishing failed; trying again in %g s", RETRY)
            self._turn = self._clock.call_at(self._clock.monotonic() + RETRY, self.publish_now)

    async def run(self) -> None:
        """Do what takes a while, until `stop`."""
        while not self._stopped:
            await self._wakeup
            await self._publish_or_log()
        if self._turn is not None:
            self._turn.cancel()
        await self._publish_or_log()

    def _alone(self) -> bool:
        return self._under_way() < 2 and self._clock.monotonic() - self._published_at > RUSH

    def _publish_marked(self) -> None:
        now = self._published_at = self._clock.monotonic()
        going = self._collect(now)
        if not going:
            return
        for path, seq, _ in going:
            path.session.on_handed(seq)
        letters = [letter for _, _, letter in going]
        if self._wire.publish_at_once(letters):
            self._counters.batches_out += len(letters)
            self._counters.bytes_out += sum([len(payload) for _, payload, _ in letters])
            return
        for path, seq, _ in going:
            path.session.on_unsent(seq)
        self._unsent = going
        self._wakeup.wake()

    def _collect(self, now: float) -> list[tuple[Path, int, Letter]]:
        """What all marked paths have to publish now."""
        marked, self._marked = self._marked, {}
        going: list[tuple[Path, int, Letter]] = []
        for path in marked:
            session = path.session
            for seq, payload in path.flush(now):
                going.append((path, seq, (path.peer, payload, f"{session.path}-{seq}")))
            if session.more_now:
                # After everybody else has had a turn of the event loop.
                self.mark(path)
        return going

    async def _publish_or_log(self) -> None:
        self._waiting = True
        try:
            await self._publish_waiting()
        except Exception:
            logger.exception("publishing failed; trying again in %g s", RETRY)
            await asyncio.sleep(RETRY)
            self._wakeup.wake()
        finally:
            self._waiting = False

    async def _publish_waiting(self) -> None:
        """Publish everything, waiting where the wire has to."""
        while self._unsent or self._marked or self._notes or self._renamed is not None:
            for path, seq, letter in self._take_unsent():
                if path.over or path.settling:
                    # Whoever was told that its call never left must be right.
                    continue
                path.session.on_handed(seq)
                if not await self._publish(*letter):
                    path.session.on_unsent(seq)
            while self._notes:
                peer, payload = self._notes.popitem()
                await self._publish(peer, payload, "0-0")
            if self._renamed is not None:
                me, events = self._renamed
                await self._wire.listen(me, events)
                self._renamed = None
            if self._marked:
                self._unsent = self._collect(self._clock.monotonic())
            if self._marked:
                # Bulk has its turn after everybody else.
                await asyncio.sleep(0)

    def _take_unsent(self) -> list[tuple[Path, int, Letter]]:
        unsent, self._unsent = self._unsent, []
        return unsent

    async def _publish(self, peer: str, payload: bytes, tag: str) -> bool:
        self._counters.batches_out += 1
        self._counters.bytes_out += len(payload)
        handed = await self._wire.publish(peer, payload, tag)
        if not handed:
            self._counters.unsent += 1
        return handed
