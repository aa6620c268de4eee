"""`Sweeper`: the node's two housekeeping loops. Actors have no timers of their own (idle-is-free)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..stores import StoreUnavailable
from .departure import Departure
from .host import TOUCH_AFTER, Host
from .lifecycle import State, leave
from .population import Population

__all__ = ["Sweeper"]

logger = logging.getLogger("understudy.actors")

_BATCH = 64
"""Actors put to sleep before the event loop gets to breathe."""
_EXPIRE_LIMIT = 1000
_EXPIRE_BATCHES = 10
"""Of `_EXPIRE_LIMIT` records, at most, each time."""


class Sweeper:
    """Puts idle actors to sleep, keeps the records of busy ones from expiring, sweeps expired records away.

    Args:
        shortest_ttl: Seconds; the shortest lifetime of the kinds' records.
        sweep_every: Seconds between two looks at the idle actors.
        expire_every: Seconds between two calls of `SessionStore.expire`, give or take a fifth, so that the nodes of
            a cluster do not all call at once.
    """

    def __init__(
        self,
        host: Host,
        population: Population,
        *,
        shortest_ttl: float,
        sweep_every: float,
        expire_every: float,
        memory_pressure: Callable[[], bool] | None,
    ) -> None:
        self._host = host
        self._population = population
        self._renew_every = shortest_ttl * TOUCH_AFTER
        self._renewed = host.clock.monotonic()
        self._sweep_every = sweep_every
        self._expire_every = expire_every
        self._memory_pressure = memory_pressure

    async def sweep_forever(self) -> None:
        """Until cancelled."""
        while True:
            await self._host.clock.sleep(self._sweep_every)
            try:
                await self._passivate_idle()
                await self._relieve_pressure()
                await self._renew_busy()
            except Exception:
                logger.exception("a sweep of the registry failed")

    async def expire_forever(self) -> None:
        """Until cancelled."""
        random = self._host.storage.random
        while True:
            await self._host.clock.sleep(self._expire_every * (0.8 + 0.4 * random.random()))
            await self._expire()

    async def _passivate_idle(self) -> None:
        host = self._host
        horizon = host.clock.monotonic() - host.limits.idle_after
        count = 0
        while host.idle and host.leaving < host.limits.max_leaving:
            cell, since = next(iter(host.idle.items()))
            if since > horizon:
                return
            leave(cell, Departure.PASSIVATED)
            count += 1
            if count % _BATCH == 0:
                await asyncio.sleep(0)

    async def _relieve_pressure(self) -> None:
        host = self._host
        while self._memory_pressure is not None and host.idle and self._memory_pressure():
            for _ in range(min(_BATCH, len(host.idle), host.limits.max_leaving - host.leaving)):
                cell = self._population.next_to_leave()
                if cell is not None:
                    leave(cell, Departure.PASSIVATED)
            # The pressure can ease only when they have closed what they hold.
            while host.leaving >= _BATCH:
                await self._population.next_departure()
            await asyncio.sleep(0)

    async def _renew_busy(self) -> None:
        """A turn of hours, or a pin, is use too, and nothing else would renew the record meanwhile."""
        host = self._host
        now = host.clock.monotonic()
        if now - self._renewed < self._renew_every:
            return
        self._renewed = now
        if len(host.idle) == len(self._population.cells):
            return
        for count, cell in enumerate(list(self._population.cells.values())):
            if cell.state is State.LIVE and cell not in host.idle:
                host.touch_if_due(cell, now)
            if count % 1024 == 1023:
                await asyncio.sleep(0)

    async def _expire(self) -> None:
        storage = self._host.storage
        counters = self._host.counters
        try:
            for _ in range(_EXPIRE_BATCHES):
                expired = await storage.bounded(storage.store.expire(limit=_EXPIRE_LIMIT))
                counters.expired += expired
                if expired < _EXPIRE_LIMIT:
                    return
        except StoreUnavailable:
            counters.expire_failures += 1
        except Exception:
            counters.expire_failures += 1
            logger.exception("the store could not sweep its expired records")
