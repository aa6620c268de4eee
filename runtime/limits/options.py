"""`LimitOptions`: what `Runtime` was told of limits, and the limiter that comes of it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from ...actors.clock import Clock, SystemClock
from ...actors.task_owner import TaskOwner
from ...stores import SessionStore
from ..errors import ConfigurationError
from .census import StoreCensus
from .counters import Counters, MemoryCounters
from .guarded_counters import GuardedCounters, WhenCountersFail
from .limiter import Limiter
from .limits import LimitsOf, limits_of
from .sharing import Sharing
from .usage import Usage

if TYPE_CHECKING:
    from ..cluster.cluster import Cluster

__all__ = ["LimitOptions"]


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """Checked when it is made; used each time that the runtime starts."""

    limits_of: LimitsOf
    when_counters_fail: WhenCountersFail
    counters: Counters | None
    """None: those of the cluster, or of this node if it is alone."""
    clock: Clock
    wall: Callable[[], float]

    @classmethod
    def of(
        cls,
        limits: Any,
        when_counters_fail: str = "open",
        counters: Counters | None = None,
        *,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
    ) -> LimitOptions | None:
        """None where no limits are given.

        Raises:
            ConfigurationError: They are not given as they must be.
        """
        if when_counters_fail not in ("open", "closed"):
            raise ConfigurationError(f'when_counters_fail is {when_counters_fail!r}; it must be "open" or "closed"')
        if limits is None:
            if counters is not None:
                raise ConfigurationError("limit_counters is given without limits; say what is to be counted")
            return None
        mode: WhenCountersFail = "open" if when_counters_fail == "open" else "closed"
        return cls(limits_of(limits), mode, counters, clock or SystemClock(), wall)

    @asynccontextmanager
    async def running(
        self, *, node: str, store: SessionStore, cluster: Cluster | None, tasks: TaskOwner, store_timeout: float
    ) -> AsyncGenerator[Limiter]:
        """The limiter, while the node runs. `tasks`: owns what goes on beside. `store_timeout` in seconds."""
        counters = self.counters
        if counters is None:
            if cluster is None:
                counters = MemoryCounters()
            else:
                from .nats_counters import NatsCounters

                counters = NatsCounters(cluster.counters)
                await counters.open()
        guarded = GuardedCounters(counters, when_failing=self.when_counters_fail, clock=self.clock, tasks=tasks)
        sharing = Sharing(
            guarded,
            self.clock,
            self.wall,
            (lambda: node) if cluster is None else (lambda: cluster.ownership.me),
            _lives if cluster is None else cluster.lives,
            tasks,
            count(1).__next__,
        )
        census = StoreCensus(store, clock=self.clock, timeout=store_timeout)
        async with Limiter(Usage(self.limits_of, sharing, census)) as limiter:
            yield limiter


def _lives(holder: str) -> bool | None:
    # Without a cluster nobody can tell: what a dead node held stays held.
    return True
