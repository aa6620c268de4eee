"""`Admission`: lets requests in at the pace of the event loop, the tenants in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from ...actors.session import TenantContext
from ...actors.session.wire import SERVER_BUSY, Refusal
from ..wire.refusals import Refused
from .lanes import LaneFull, Lanes, LanesFull
from .options import Fairness

__all__ = ["Admission"]

BURST: Final = 4
"""Requests that are let in at once while nobody waits ..."""
WINDOW: Final = 0.0005
"""... in so many seconds. More than a node can serve, so that only those that come together have to wait."""
PASSES: Final = 3
"""Passes of the event loop that a call takes which waits for nothing else: its beginning, its turn, its answer. So many
belong to each that is let in while others wait. An empty pass costs 3 us, a request fifty times that."""
STRAIGHT: Final = 16
"""Requests that pass by those who wait before one of these is let in again."""
ALONE_AFTER: Final = 60.0
"""Seconds without a request of a second tenant after which the one that is left is not held up any more."""
LONGEST: Final = 10.0
"""Seconds that a request may wait. Not even a full queue takes so long, unless the event loop hardly turns."""
COST_OF: Final = 65536
"""Bytes of body that count as much as one request more ..."""
DEAREST: Final = 2**26
"""... up to so many: what a request declares is not yet sent, and may be nonsense."""

_TENANT_FULL: Final = Refusal(SERVER_BUSY, "Too many requests of this tenant wait for this node", None, 429, 1.0)
_NODE_FULL: Final = Refusal(SERVER_BUSY, "Too many requests wait for this node", None, 503, 1.0)


class Admission:
    """Who is let in next. Says when a request may begin, never how many may run: nothing has to be given back.

    All requests of a node share one event loop, where whoever has a hundred of them ready is served a hundred times
    before the one of another. Here those of one tenant wait for each other, before their bodies are read, and a tenant
    that has had no more than the others passes by. Whoever is let in has the loop for as long as a call takes: what a
    request finds before it is the rest of one call. While the loop has time for all, or there is only one tenant,
    nobody waits.
    """

    def __init__(
        self,
        options: Fairness,
        *,
        clock: Callable[[], float] = perf_counter,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`clock` in seconds. `call_soon` calls back in the next pass of the event loop; None: the running loop's."""
        self._options = options
        self._clock = clock
        self._call_soon = call_soon
        self._lanes: Lanes[_Waiting] = Lanes(per_tenant=options.waiting_per_tenant, in_all=options.waiting)
        self._window_ends = 0.0
        self._let_in = 0
        self._latest: str | None = None
        self._mixed_until = 0.0
        self._passing = False
        self._taken = 0
        """Passes from now on that belong to those who were let in."""
        self._straight = 0
        self._waited = 0
        self._waited_seconds = 0.0
        self._refused_tenant = 0
        self._refused_node = 0
        self._left = 0

    def enter(self, tenant: TenantContext, size: int) -> asyncio.Future[None] | None:
        """Let a request with a body of `size` bytes in: None, or a future that is done when it may go on.

        Cancelling the future takes the request out of the queue.

        Raises:
            Refused: Too many wait (429 for the tenant's own, 503 for all). The future raises it too, with 503.
        """
        now = self._clock()
        name = tenant.tenant
        if name != self._latest:
            if self._latest is not None:
                self._mixed_until = now + ALONE_AFTER
            self._latest = name
        if not self._passing:
            if now >= self._window_ends:
                self._window_ends = now + WINDOW
                self._let_in = 1
                return None
            if self._let_in < BURST or now >= self._mixed_until:
                self._let_in += 1
                return None
        cost = (1 + min(size, DEAREST) / COST_OF) / self._options.weight_of(tenant)
        if self._passing and self._straight < STRAIGHT and self._lanes.pass_by(name, cost):
            self._straight += 1
            self._taken = PASSES
            return None
        return self._wait(tenant, cost, now)

    def _wait(self, tenant: TenantContext, cost: float, now: float) -> asyncio.Future[None]:
        waiting = _Waiting(tenant.tenant, now, self._leave)
        try:
            pushed_out = self._lanes.push(tenant.tenant, waiting, cost)
        except LaneFull:
            self._refused_tenant += 1
            raise Refused(_TENANT_FULL) from None
        except LanesFull:
            self._refused_node += 1
            raise Refused(_NODE_FULL) from None
        if pushed_out is not None:
            self._refuse(pushed_out)
        if not self._passing:
            self._passing = True
            self._pass_soon()
        return waiting

    def _pass_soon(self) -> None:
        (self._call_soon or asyncio.get_running_loop().call_soon)(self._pass)

    def _pass(self) -> None:
        if self._taken > 0:
            self._taken -= 1
        elif not self._let_one_in():
            self._passing = False
            return
        # Also when nobody waits any more: whoever comes during the passes of the last one counts as beside it.
        self._pass_soon()

    def _let_one_in(self) -> bool:
        now = self._clock()
        while (due := self._lanes.pop()) is not None:
            _, waiting = due
            if now - waiting.since <= LONGEST:
                self._straight = 0
                self._taken = PASSES - 1
                self._waited += 1
                self._waited_seconds += now - waiting.since
                waiting.set_result(None)
                return True
            self._refuse(waiting)
        return False

    def _refuse(self, waiting: _Waiting) -> None:
        self._refused_node += 1
        waiting.set_exception(Refused(_NODE_FULL))
        # It counts as seen: whoever is cancelled before he wakes never looks.
        waiting.exception()

    def _leave(self, waiting: _Waiting) -> None:
        if self._lanes.discard(waiting.tenant, waiting):
            self._left += 1

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return {
            "admission_waiting": len(self._lanes),
            "admission_tenants_waiting": self._lanes.tenants,
            "admission_waited_total": self._waited,
            "admission_waited_seconds_total": self._waited_seconds,
            "admission_refused_tenant_total": self._refused_tenant,
            "admission_refused_node_total": self._refused_node,
            "admission_left_total": self._left,
        }


class _Waiting(asyncio.Future[None]):
    """A request that waits to be let in."""

    def __init__(self, tenant: str, since: float, leave: Callable[[_Waiting], None]) -> None:
        super().__init__()
        self.tenant = tenant
        self.since = since
        self._leave = leave

    def cancel(self, msg: Any = None) -> bool:
        # Callbacks of a future come a pass too late: it might be let in meanwhile.
        cancelled = super().cancel(msg)
        if cancelled:
            self._leave(self)
        return cancelled
