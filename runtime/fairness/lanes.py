"""`Lanes`: a queue for each tenant, of which the one that has had least is served next."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

__all__ = ["LaneFull", "Lanes", "LanesFull"]

T = TypeVar("T")


class LaneFull(Exception):
    """The tenant has as many waiting as one may."""


class LanesFull(Exception):
    """All tenants together have as many waiting as they may, and nobody has more than this one."""


class _Waiter(NamedTuple, Generic[T]):
    item: T
    cost: float


@dataclass(slots=True, eq=False)
class _Lane(Generic[T]):
    tenant: str
    turn: float
    """The virtual time at which its next one is due: what it has had, in costs by weight."""
    queue: deque[_Waiter[T]] = field(default_factory=lambda: deque[_Waiter[T]]())


class Lanes(Generic[T]):
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996): deficit round robin's shares, without its rounds.

    A tenant that had nothing waiting begins where the others are: what it did not use before is not saved up. Served in
    logarithmic time of the number of tenants; nothing is kept of a tenant that has had no more than the others, nor
    where that would be of more tenants than may have something waiting.
    """

    __slots__ = ("_heap", "_in_all", "_lanes", "_most", "_now", "_order", "_per_tenant", "_size")

    def __init__(self, *, per_tenant: int, in_all: int) -> None:
        """How many may wait."""
        self._per_tenant = per_tenant
        self._in_all = in_all
        self._lanes: dict[str, _Lane[T]] = {}
        self._heap: list[tuple[float, int, _Lane[T]]] = []
        self._now = 0.0
        self._most = 0
        """No lane is longer; so that refusing costs no look at all of them, time after time."""
        self._order = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def tenants(self) -> int:
        """How many tenants have something waiting, or have lately had more than the others."""
        return len(self._lanes)

    def pass_by(self, tenant: str, cost: float) -> bool:
        """Whether one of `tenant` need not wait, which has nothing waiting and has had no more than the others.

        If so, it has had `cost` now, which is as in `push`.
        """
        lane = self._lanes.get(tenant)
        if lane is None:
            if len(self._lanes) < self._in_all:
                self._open(tenant, self._now + cost)
            return True
        if lane.queue or lane.turn > self._now:
            return False
        lane.turn = self._now + cost
        return True

    def push(self, tenant: str, item: T, cost: float) -> T | None:
        """Let `item` wait. `cost`: what it takes of the tenant's share, divided by its weight; more than 0.

        Returns an item of another tenant that has to go for it, if room was short.

        Raises:
            LaneFull, LanesFull: Nothing was changed.
        """
        lane = self._lanes.get(tenant)
        own = 0 if lane is None else len(lane.queue)
        if own >= self._per_tenant:
            raise LaneFull
        pushed_out: T | None = None
        if self._size >= self._in_all:
            pushed_out = self._push_out(own + 1)
        if lane is None:
            lane = self._open(tenant, self._now)
        lane.queue.append(_Waiter(item, cost))
        self._size += 1
        self._most = max(self._most, len(lane.queue))
        return pushed_out

    def pop(self) -> tuple[str, T] | None:
        """Whose turn it is, and what; None if nothing waits."""
        heap = self._heap
        while heap:
            turn, _, lane = heappop(heap)
            if lane.turn > turn:
                # It has passed by since.
                self._enter(lane)
                continue
            # One that left its queue early, or had more than its share of late, may be in the heap with nothing to do.
            self._now = max(self._now, turn)
            if not lane.queue:
                del self._lanes[lane.tenant]
                continue
            waiter = lane.queue.popleft()
            self._size -= 1
            lane.turn = turn + waiter.cost
            if self._size == 0:
                # Nobody waits who could be at a disadvantage by it.
                self._lanes.clear()
                heap.clear()
                self._most = 0
            elif lane.queue or len(self._lanes) <= self._in_all:
                self._enter(lane)
            else:
                del self._lanes[lane.tenant]
            return lane.tenant, waiter.item
        return None

    def discard(self, tenant: str, item: T) -> bool:
        """Let `item` wait no more; False if it does not."""
        lane = self._lanes.get(tenant)
        if lane is None:
            return False
        for at, waiter in enumerate(lane.queue):
            if waiter.item is item:
                del lane.queue[at]
                self._size -= 1
                return True
        return False

    def _push_out(self, kept: int) -> T:
        """The newest of the longest lane goes, if that is longer than `kept`. Raises `LanesFull`."""
        if self._most <= kept:
            raise LanesFull
        longest = max(self._lanes.values(), key=lambda each: len(each.queue)).queue
        self._most = len(longest)
        if self._most <= kept:
            raise LanesFull
        self._size -= 1
        return longest.pop().item

    def _open(self, tenant: str, turn: float) -> _Lane[T]:
        lane = self._lanes[tenant] = _Lane(tenant, turn)
        self._enter(lane)
        return lane

    def _enter(self, lane: _Lane[T]) -> None:
        self._order += 1
        heappush(self._heap, (lane.turn, self._order, lane))
