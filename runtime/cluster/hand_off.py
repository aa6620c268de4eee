"""`HandOff`: moves a node's sessions to others, a few at a time, before it leaves."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from ...actors import Registry
from ...actors.clock import Clock
from ...stores import Address
from .counts import Counts
from .holdings import Holdings
from .ownership import Ownership

__all__ = ["HandOff"]

logger = logging.getLogger("understudy.cluster")

AT_ONCE: Final = 32
RATE: Final = 1000.0
"""Sessions a second, so that the nodes that get them are not flooded."""


class HandOff:
    """The actor finishes its turn, what it changed is saved, the directory gives its address to another node, and what
    waits for it is sent there. The new owner claims it with the next request."""

    def __init__(
        self,
        ownership: Ownership,
        registry: Registry,
        holdings: Holdings,
        clock: Clock,
        counts: Counts,
        *,
        moved: Callable[[Address], None],
        rate: float = RATE,
    ) -> None:
        """`moved` is told of each address that has left: clients' streams go with it. `rate`: sessions a second."""
        self._ownership = ownership
        self._registry = registry
        self._holdings = holdings
        self._clock = clock
        self._counts = counts
        self._moved = moved
        self._rate = rate

    async def run(self) -> int:
        """Move all that is held, least recently used first; how many went.

        Ends when nothing is held any more, or the node drains no longer.

        A turn that runs is waited for, however long: bound it from outside. Cancellation leaves those that have not
        moved where they are.
        """
        moved = 0
        while True:
            live = self._registry.addresses()
            waiting = deque(dict.fromkeys((*live, *self._ownership.addresses)))
            if not waiting or not self._ownership.draining:
                return moved
            moved += await self._round(waiting)
            # Sessions may have been opened, or given to this node, meanwhile.
            await self._clock.sleep(0.01)

    async def _round(self, waiting: deque[Address]) -> int:
        began = self._clock.monotonic()
        moved = 0

        async def worker() -> None:
            nonlocal moved
            while waiting and self._ownership.draining:
                early = moved / self._rate - (self._clock.monotonic() - began)
                if early > 0:
                    await self._clock.sleep(early)
                    continue
                await self._move(waiting.popleft())
                moved += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(AT_ONCE, len(waiting))):
                tasks.create_task(worker())
        return moved

    async def _move(self, address: Address) -> None:
        ownership = self._ownership
        marked = ownership.hand_off(address)
        if not marked and ownership.handing_off(address):
            return
        try:
            await self._registry.hand_off(address)
        except BaseException:
            # The drain was taken back, or took too long. Marked for ever, it would be nobody's.
            ownership.stays(address)
            raise
        peer = ownership.peers.roomiest(self._clock.monotonic())
        if peer is not None:
            ownership.peers.assign(peer)
        await self._holdings.give(address, peer.incarnation if peer is not None else "")
        self._moved(address)
        self._counts.handed_off += 1
