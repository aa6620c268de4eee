"""`BlockingThreads`: how many worker threads the blocking code of each tenant may have."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from ...stores import UnderstudyError

__all__ = ["BlockingThreads", "ThreadsBusy"]

WAITING_PER_TENANT: Final = 1024
WAITING: Final = 8192
"""Calls of all tenants that may wait."""


class ThreadsBusy(UnderstudyError):
    """Too many calls of the tenant wait for a thread already."""


class BlockingThreads:
    """Counts threads; who runs them is somebody else's business. On one event loop.

    A tenant may have `per_tenant`, and no more than are still free: some are left for who comes next when others hold
    theirs for ever (of 64 and 8 each, until the eleventh of such tenants). Those that wait get theirs in the order of
    their coming, the tenants in turn.
    """

    def __init__(self, *, per_tenant: int, in_all: int) -> None:
        self._per_tenant = per_tenant
        self._in_all = in_all
        self._held: dict[str, int] = {}
        self._running = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiting_now = 0
        self._waited = 0
        self._refused = 0
        self.running_on = 0
        """Threads whose call has ended without them: they were not to be stopped."""

    async def acquire(self, tenant: str) -> None:
        """Wait until `tenant` may have one more, which `release` gives back. Cancelled, it has none.

        Raises:
            ThreadsBusy: Too many wait.
        """
        if tenant not in self._waiting and self._may_have(tenant):
            self._take(tenant)
            return
        queue = self._waiting.setdefault(tenant, deque())
        if len(queue) >= WAITING_PER_TENANT:
            self._refused += 1
            raise ThreadsBusy(
                f"{len(queue)} calls of this tenant wait for one of its {self._per_tenant} threads: try again later"
            )
        if self._waiting_now >= WAITING:
            self._refused += 1
            if not queue:
                del self._waiting[tenant]
            raise ThreadsBusy(f"{WAITING} calls wait for one of {self._in_all} threads: try again later")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(place)
        self._waiting_now += 1
        self._waited += 1
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():
                # It was given one at the moment at which it was cancelled.
                self.release(tenant)
            else:
                self._forget(tenant, place)
            raise

    def release(self, tenant: str) -> None:
        """A thread of `tenant` has ended."""
        self._running -= 1
        left = self._held[tenant] - 1
        if left:
            self._held[tenant] = left
        else:
            del self._held[tenant]
        self._hand_out()

    def _may_have(self, tenant: str) -> bool:
        held = self._held.get(tenant, 0)
        return held < self._per_tenant and held < self._in_all - self._running

    def _take(self, tenant: str) -> None:
        self._held[tenant] = self._held.get(tenant, 0) + 1
        self._running += 1

    def _hand_out(self) -> None:
        """Give what is free to those who wait, one each in turn."""
        passed_over = 0
        while passed_over < len(self._waiting) and self._running < self._in_all:
            tenant = next(iter(self._waiting))
            self._waiting.move_to_end(tenant)
            if not self._may_have(tenant):
                passed_over += 1
                continue
            passed_over = 0
            place = self._waiting[tenant].popleft()
            self._waiting_now -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]
            if not place.done():
                self._take(tenant)
                place.set_result(None)

    def _forget(self, tenant: str, place: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is None or place not in queue:
            return
        queue.remove(place)
        self._waiting_now -= 1
        if not queue:
            del self._waiting[tenant]

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "blocking_threads": self._running,
            "blocking_threads_running_on": self.running_on,
            "blocking_waiting": self._waiting_now,
            "blocking_waited_total": self._waited,
            "blocking_refused_total": self._refused,
        }
