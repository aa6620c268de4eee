"""`TenantUse`: what a node knows of what one tenant uses."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from .permit_pool import PermitPool
from .pool import Pool
from .post_paid import PostPaid
from .rate_pool import RatePool
from .sharing import Sharing
from .stock import Stock

if TYPE_CHECKING:
    from .allowance import Allowance

__all__ = ["Census", "TenantUse", "Tidy"]

Census = Callable[[str], Awaitable[int]]
"""Counts what a tenant has in the store."""

Tidy = Callable[[], Awaitable[None]]

KEPT: Final = 60.0
"""Seconds that a tenant is known which does nothing: its last minute is then over."""


class TenantUse:
    """The tenant's shares of all limits that all nodes count together."""

    __slots__ = (
        "_takes",
        "allowance",
        "calls",
        "forgettable",
        "forgotten",
        "in_flight",
        "look_at",
        "reads",
        "results",
        "sessions",
        "state",
        "streams",
        "under_way",
    )

    def __init__(self, tenant: str, sharing: Sharing, *, sessions: Census, state: Census) -> None:
        """`sessions` counts sessions, `state` bytes of their snapshots."""
        key = _digest(tenant)
        self.calls = RatePool(f"calls.{key}", sharing)
        self.reads = RatePool(f"reads.{key}", sharing)
        self.in_flight = PermitPool(f"in-flight.{key}", sharing)
        self.streams = PermitPool(f"streams.{key}", sharing)
        self.results = PostPaid(f"results.{key}", sharing)
        self.sessions = Stock(f"sessions.{key}", sharing, lambda: sessions(tenant))
        self.state = Stock(f"state.{key}", sharing, lambda: state(tenant))
        self.allowance: Allowance | None = None
        """Of its calls that name no session, or whose sessions have no limits of their own."""
        self.under_way = 0
        """Calls that have entered and not left, and hold no permit of `in_flight` meanwhile."""
        self._takes = [0, 0, 0, 0]
        self.look_at = 0.0
        """Monotonic seconds at which there may be something to do for it. Whoever uses anything sets it to 0."""
        self.forgettable = False
        """Nothing is lost if it is made anew when it is needed."""
        self.forgotten = False
        """It was: another one counts."""

    def due(self, now: float) -> list[Tidy]:
        """What is to be tidied: of the pools, those from which nothing was taken since this was last asked. If that is
        nothing, it is to be looked at again when it may be forgotten.
        """
        pools: tuple[Pool, ...] = (self.calls, self.reads, self.in_flight, self.streams)
        due: list[Tidy] = []
        idle = True
        for index, pool in enumerate(pools):
            if self._takes[index] != pool.takes:
                self._takes[index] = pool.takes
                idle = False
                if pool.forgotten:
                    due.append(pool.enter_again)
            elif not pool.resting:
                due.append(pool.tidy)
                idle = False
        for part in (self.results, self.sessions, self.state):
            if not part.resting:
                due.append(part.tidy)
                idle = False
        if idle and not self.under_way:
            self.forgettable = self.look_at > 0.0
            self.look_at = now + KEPT
        return due

    def leaving(self) -> list[Tidy]:
        """Everything that others should have back, or hear of, when the node stops."""
        parts = (self.calls, self.reads, self.in_flight, self.streams, self.results, self.sessions, self.state)
        return [part.tidy for part in parts if not part.resting]

    @property
    def resting(self) -> bool:
        """Whether nothing is in hand, in use, or untold."""
        return not (self.under_way or self.leaving())

    @property
    def drawn(self) -> int:
        """Times that tokens were drawn."""
        return self.calls.drawn + self.reads.drawn + self.in_flight.drawn + self.streams.drawn


def _digest(tenant: str) -> str:
    """A tenant's id may be any text, of which a key can be made only so."""
    return hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:32]
