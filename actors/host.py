"""`Host`: what the cells of one node share, and the order in which idle ones may leave."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..stores import RecordNotFound, StaleEpoch
from .census import Census
from .clock import Clock
from .counters import Counters
from .departure import Departure
from .gate import Gate
from .lifecycle import leave
from .observer import Observer
from .supervision import Supervision
from .writer import Storage

if TYPE_CHECKING:
    from .cell import LiveCell

__all__ = ["Host", "Limits"]

logger = logging.getLogger("understudy.actors")

TOUCHES_AT_ONCE = 64
TOUCH_AFTER = 1 / 8
"""Of a lifetime: a record whose expiry was written this long ago is touched at its next use."""
TOUCH_AGAIN_AFTER = 1 / 64
"""Of a lifetime: how long after a touch that failed the next is tried."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one registry. Times are in seconds.

    Raises:
        ValueError: One that must be at least 1 is not.
    """

    max_live: int
    mailbox_size: int
    shared_limit: int
    idle_after: float
    activation_timeout: float
    close_timeout: float
    fair: bool = False
    """Whether tenants share the room for actors, or the least recently used of all leaves."""

    def __post_init__(self) -> None:
        for name in ("max_live", "mailbox_size", "shared_limit"):
            bound = getattr(self, name)
            if bound < 1:
                raise ValueError(f"{name} must be at least 1, not {bound}")

    @property
    def max_leaving(self) -> int:
        """Actors that may be closing at once; at this bound a full registry takes no new ones."""
        return max(64, self.max_live // 8)


class Host:
    """Owned by the registry; cells reach the node through it."""

    __slots__ = (
        "census",
        "clock",
        "context",
        "counters",
        "departed",
        "door_closed",
        "draining",
        "gate",
        "idle",
        "leaving",
        "limits",
        "observer",
        "spawn",
        "storage",
        "supervision",
        "touching",
        "waiting",
    )

    def __init__(
        self,
        *,
        clock: Clock,
        counters: Counters,
        limits: Limits,
        storage: Storage,
        supervision: Supervision,
        observer: Observer | None,
        gate: Gate | None,
        departed: Callable[[LiveCell, bool | BaseException], None],
    ) -> None:
        self.census = Census(limits.max_live)
        self.clock = clock
        self.counters = counters
        self.limits = limits
        self.storage = storage
        self.supervision = supervision
        self.observer = observer
        self.gate = gate
        self.departed = departed
        """Called when a cell has left: it is to be removed from the registry's table."""
        self.spawn: Callable[..., asyncio.Task[Any]]
        """`TaskGroup.create_task` of the registry's task group, from its start on."""
        self.context = Context()
        """What turns without a context of their own start from: the registry's surroundings, never a caller's."""
        self.waiting: set[asyncio.Task[None]] = set()
        """Turns that began at once, and wait: no task group knows of them before the registry's end."""
        self.idle: OrderedDict[LiveCell, float] = OrderedDict()
        """Cells that may be passivated, by when they became idle: the least recently used one is the first."""
        self.leaving = 0
        self.touching = 0
        self.draining = True
        """No actor is started: the registry stops, or has not begun."""
        self.door_closed = False
        """No actor is started, but those that live stay."""

    def began(self, task: asyncio.Task[None]) -> None:
        """The turn that `task` runs began at once, and has come as far as it comes without waiting."""
        if not task.done():
            self.waiting.add(task)
            task.add_done_callback(self.waiting.discard)

    def rest(self, cell: LiveCell) -> None:
        """`cell` has nothing running and nothing waiting."""
        now = self.clock.monotonic()
        if cell.writer is not None:
            self.touch_if_due(cell, now)
        if self.draining:
            leave(cell, Departure.PASSIVATED)
        elif not cell.pins:
            self.idle[cell] = now

    def touch_if_due(self, cell: LiveCell, now: float) -> None:
        """Renew the record's expiry in the background if it was written long ago."""
        writer = cell.writer
        if writer is None or now - writer.renewed <= writer.ttl * TOUCH_AFTER or not writer.version:
            return
        if self.touching < TOUCHES_AT_ONCE:
            self.touching += 1
            # Until the outcome is known nobody else need try.
            writer.renewed = now
            self.spawn(self._touch(cell), context=self.context.copy())

    def notify(self, call: Callable[[Observer], object]) -> None:
        """Tell the observer, if there is one."""
        if self.observer is None:
            return
        try:
            call(self.observer)
        except Exception:
            logger.exception("the registry's observer raised")

    async def _touch(self, cell: LiveCell) -> None:
        writer = cell.writer
        if writer is None:
            return
        try:
            await writer.touch()
            self.counters.touches += 1
        except StaleEpoch:
            leave(cell, Departure.LOST)
        except RecordNotFound:
            leave(cell, Departure.GONE)
        except Exception:
            self.counters.touch_failures += 1
            writer.renewed -= writer.ttl * (TOUCH_AFTER - TOUCH_AGAIN_AFTER)
            logger.debug("touch of %s failed", cell.address, exc_info=True)
        finally:
            self.touching -= 1
