"""`Publisher`: the one task of a link that talks to the wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from .counters import LinkCounters
from .path import Path
from .wakeup import Wakeup
from .wire import Wire, WireEvents

__all__ = ["Publisher"]

logger = logging.getLogger(__name__)

MAX_NOTES: Final = 4096
RETRY: Final = 1.0


class Publisher:
    """Publishes, once in an iteration of the event loop, what all paths have collected until then."""

    def __init__(self, wire: Wire, counters: LinkCounters, now: Callable[[], float]) -> None:
        """`now`: monotonic seconds."""
        self._wire = wire
        self._counters = counters
        self._now = now
        self._wakeup = Wakeup()
        self._marked: dict[Path, None] = {}
        self._unfinished: dict[Path, None] = {}
        """Have more bulk to publish, after everybody else has had a turn of the event loop."""
        self._notes: dict[str, bytes] = {}
        self._renamed: tuple[str, WireEvents] | None = None
        self._publishing = False
        self._stopped = False

    @property
    def renaming(self) -> bool:
        """Whether the wire still goes by the old name."""
        return self._renamed is not None

    def mark(self, path: Path) -> None:
        """`path` has something to publish."""
        if not self._marked:
            self._wakeup.wake()
        self._marked[path] = None

    def forget(self, path: Path) -> None:
        """Nothing of `path` is published any more."""
        self._marked.pop(path, None)
        self._unfinished.pop(path, None)

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

    async def run(self) -> None:
        """Publish until `stop`."""
        while not self._stopped:
            await self._wakeup.wait()
            await self._publish_or_log()
            if self._unfinished:
                await asyncio.sleep(0)
        await self._publish_or_log()

    async def _publish_or_log(self) -> None:
        try:
            await self._publish_guarded()
        except Exception:
            # Whatever it is, what comes after must not wait for ever. What was lost goes again in time.
            logger.exception("publishing failed; trying again in %g s", RETRY)
            await asyncio.sleep(RETRY)

    async def publish_now(self) -> None:
        """Publish what waits, without the turn of the event loop that lets others add to it.

        Does nothing if that might take a while. Cancelled, it has published some; what is missing goes again in time.
        """
        if not (self._notes or self._renamed is not None or self._wire.crowded):
            await self._publish_guarded()

    async def _publish_guarded(self) -> None:
        if self._publishing:
            # Whoever does it comes to what was added meanwhile.
            return
        self._publishing = True
        try:
            await self._publish_all()
        finally:
            self._publishing = False
            if self._unfinished or self._marked or self._notes or self._renamed is not None:
                self._wakeup.wake()

    async def _publish_all(self) -> None:
        marked = self._marked
        if self._unfinished:
            marked.update(self._unfinished)
            self._unfinished.clear()
        while marked or self._notes or self._renamed is not None:
            while self._notes:
                peer, payload = self._notes.popitem()
                await self._publish(peer, payload, "0-0")
            if self._renamed is not None:
                me, events = self._renamed
                await self._wire.listen(me, events)
                self._renamed = None
            if marked:
                path = next(iter(marked))
                del marked[path]
                await self._publish_path(path)

    async def _publish_path(self, path: Path) -> None:
        session = path.session
        for seq, payload in path.flush(self._now()):
            if path.over:
                # Whoever was told that its call never left must be right.
                return
            session.on_handed(seq)
            if not await self._publish(path.peer, payload, f"{session.path}-{seq}"):
                session.on_unsent(seq)
        if session.more_now and not path.over:
            self._unfinished[path] = None

    async def _publish(self, peer: str, payload: bytes, tag: str) -> bool:
        self._counters.batches_out += 1
        self._counters.bytes_out += len(payload)
        handed = await self._wire.publish(peer, payload, tag)
        if not handed:
            self._counters.unsent += 1
        return handed
