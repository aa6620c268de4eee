"""`SessionLife`: sees sessions come and go at this node, and tells the host program's hooks of it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self
from zlib import crc32

from ...actors import Observer
from ...actors.actor import Cell
from ...actors.departure import Departure
from ...actors.foreign_errors import ends_the_task
from ...actors.session import SESSION, SessionActor, SessionSnapshot
from ...actors.task_owner import TaskOwner
from ...stores import Address, Record
from .session_ends import REMEMBERED, snapshot_of
from .session_hooks import EventName, SessionEvent, SessionHooks

__all__ = ["SessionLife"]

logger = logging.getLogger(__name__)

LANES: Final = 8
"""Hooks that may run at once. Events of one session share a lane, and so keep their order."""
MOST_WAITING: Final = 4096
"""Events, in all lanes."""
HOOK_TIMEOUT: Final = 5.0
"""Seconds that one hook may take."""
LAST_WORDS: Final = 5.0
"""Seconds that the hooks have for what waits when the node stops."""
WARN_EVERY: Final = 10.0
_MOVES: Final = frozenset({Departure.HANDED_OFF, Departure.LOST})


class SessionLife:
    """An `Observer` that passes everything on to `inner`. Use it as `async with`, around the registry.

    Hooks get what has happened from queues of their own: none of them is ever in the way of a request. What finds no
    room there is dropped and counted. Leaving the block waits for what is queued, for `LAST_WORDS` at most.
    """

    def __init__(
        self,
        hooks: SessionHooks,
        *,
        node: str,
        inner: Observer | None,
        takers: Callable[[], bool] | None = None,
        timeout: float = HOOK_TIMEOUT,
    ) -> None:
        """`takers`: whether another node takes what this one hands off; None: there is no other."""
        self._hooks = hooks
        self._node = node
        self._inner = inner
        self._takers = takers
        self._timeout = timeout
        self._tasks = TaskOwner()
        self._lanes = [asyncio.Queue[SessionEvent | None](MOST_WAITING // LANES) for _ in range(LANES)]
        self._workers: list[asyncio.Task[None]] = []
        self._ended: OrderedDict[Address, None] = OrderedDict()
        self._warned = float("-inf")
        self.told = 0
        self.dropped = 0
        self.failed = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._workers = [self._tasks.spawn(self._tell_all(lane)) for lane in self._lanes]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS):
                for lane in self._lanes:
                    await lane.put(None)
                await asyncio.wait(self._workers)
        except TimeoutError:
            waiting = self._waiting()
            self.dropped += waiting
            logger.warning("the node stops; hooks were not told of %d events of sessions", waiting)
        finally:
            for worker in self._workers:
                worker.cancel()
            await self._tasks.__aexit__(kind, error, traceback)

    # What happens

    def opened(self, address: Address, snapshot: SessionSnapshot) -> None:
        """See `SessionKind.opened`."""
        self._note("opened", address, snapshot, None)

    def activated(self, cell: Cell, *, rehydrated: bool) -> None:
        """See `Observer`."""
        record = cell.record
        if rehydrated and record is not None and self._hooks.rehydrated is not None and cell.address.kind == SESSION:
            self._note("rehydrated", cell.address, SessionSnapshot.unpack(record.snapshot), None)
        if self._inner is not None:
            self._inner.activated(cell, rehydrated=rehydrated)

    def departed(self, cell: Cell, departure: Departure) -> None:
        """See `Observer`."""
        actor: object = getattr(cell, "actor", None)
        # One that was never saved has not been told of.
        if isinstance(actor, SessionActor) and actor.snap.protocol_version:
            # The last node that stops gives away what it has all the same, to nobody.
            to_nobody = departure is Departure.HANDED_OFF and (self._takers is None or not self._takers())
            told = Departure.PASSIVATED if to_nobody else departure
            name: EventName = "moved" if told in _MOVES else "passivated"
            if told is Departure.ENDED:
                name = "ended"
            self._note(name, cell.address, actor.snap, told.value)
        if self._inner is not None:
            self._inner.departed(cell, departure)

    def absent(self, address: Address) -> None:
        """See `Observer`."""
        if self._inner is not None:
            self._inner.absent(address)

    def ended_asleep(self, record: Record) -> None:
        """A session was ended by deleting this record of it, though no node had it in memory."""
        self._note("ended", record.address, snapshot_of(record), Departure.ENDED.value)

    def _note(self, name: EventName, address: Address, snapshot: SessionSnapshot, reason: str | None) -> None:
        if name == "ended":
            if address in self._ended:
                return
            self._ended[address] = None
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        if getattr(self._hooks, name) is None:
            return
        event = SessionEvent(name, address.id, snapshot.tenant, snapshot.principal, snapshot.origin, self._node, reason)
        try:
            self._lanes[crc32(address.id.encode()) % LANES].put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1
            now = time.monotonic()
            if now - self._warned >= WARN_EVERY:
                self._warned = now
                logger.warning("hooks are too slow: %d events of sessions were dropped so far", self.dropped)

    # Telling

    async def _tell_all(self, lane: asyncio.Queue[SessionEvent | None]) -> None:
        while (event := await lane.get()) is not None:
            await self._tell(event)

    async def _tell(self, event: SessionEvent) -> None:
        hook = getattr(self._hooks, event.name)
        try:
            async with asyncio.timeout(self._timeout):
                told = hook(event)
                if inspect.isawaitable(told):
                    await told
            self.told += 1
        except TimeoutError:
            self.failed += 1
            logger.error("the hook %s took longer than %g s, and was given up: %r", event.name, self._timeout, hook)
        except BaseException as error:
            if ends_the_task(error):
                raise
            # Also SystemExit, which would end the node, and a cancellation that is the hook's own doing.
            self.failed += 1
            logger.exception("the hook %s failed: %r", event.name, hook)

    def _waiting(self) -> int:
        return sum(lane.qsize() for lane in self._lanes)

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "session_hooks_waiting": self._waiting(),
            "session_hooks_told_total": self.told,
            "session_hooks_failed_total": self.failed,
            "session_hooks_dropped_total": self.dropped,
        }
