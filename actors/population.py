"""`Population`: the cells of a node by address, who makes way for whom, and what follows when one has left."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from math import inf

from ..stores import Address
from .answer import fail
from .cell import LiveCell
from .counters import Counters
from .departure import Departure
from .envelope import Envelope
from .errors import ActorError, Elsewhere, NodeDraining, OwnershipLost, RegistryFull
from .host import Host
from .lifecycle import State, begin_leaving, cut, fail_waiting, go, leave

__all__ = ["Population"]

_RETRY_AFTER = 1.0
_LOOK_AGAIN_AFTER = 0.1
"""Seconds."""
_BATCH = 64
"""Actors that begin to leave before the event loop gets to breathe."""


class Population:
    """The registry's table. At most `max_live` cells, and `max_leaving` more that are on their way out."""

    def __init__(self, deliver: Callable[[Address, Envelope], None]) -> None:
        self._deliver = deliver
        self._waiters: set[asyncio.Future[None]] = set()
        self.cells: dict[Address, LiveCell] = {}
        self.host: Host
        self._next_to_leave: deque[tuple[LiveCell, float]] = deque()
        self._none_before = -inf

    def make_room(self, address: Address, tenant: str = "") -> None:
        """See to it that one more cell, of `address`, may be added: an idle one makes way, see `next_to_leave`.

        `tenant`: whose it will be; empty where that is not known yet.

        Raises:
            NodeDraining: The node takes no more.
            RegistryFull: Every actor is in use, or every one of those that should make way.
        """
        host = self.host
        if host.draining:
            raise NodeDraining(
                f"{address} is not started: this node stops, or has not begun", address, retry_after=_RETRY_AFTER
            )
        if host.door_closed:
            raise NodeDraining(
                f"{address} is not started: this node takes no more actors for now", address, retry_after=_RETRY_AFTER
            )
        too_many = host.limits.fair and host.census.has_all_it_may(tenant)
        if len(self.cells) - host.leaving < host.limits.max_live and not too_many:
            return
        leaver = None
        if host.leaving < host.limits.max_leaving:
            leaver = self._own_to_leave(tenant) if too_many else self.next_to_leave(tenant)
        if leaver is None:
            whose = f"the {host.census[tenant]}" if too_many else f"all {host.limits.max_live}"
            raise RegistryFull(
                f"{address} is not started: {whose} live actors of this {'tenant' if too_many else 'node'} are in use",
                address,
                retry_after=_RETRY_AFTER,
            )
        leave(leaver, Departure.PASSIVATED)

    def next_to_leave(self, tenant: str = "") -> LiveCell | None:
        """The idle cell that is to make way for one of `tenant`: the least recently used; with fairness, of those of
        tenants that have more than their share. None if nobody is to.
        """
        host = self.host
        idle = host.idle
        if not host.limits.fair:
            return next(iter(idle), None)
        census = host.census
        share = census.share
        for look in (False, True):
            if look:
                self._look_for_leavers(share)
            while self._next_to_leave:
                cell, since = self._next_to_leave.popleft()
                # It may have been used meanwhile, or its tenant may have fewer.
                if idle.get(cell) == since and census[cell.tenant] > share:
                    return cell
        # All beyond their share are busy. A tenant that has its share already pushes nobody out who has not.
        return None if census[tenant] >= share and len(census) > 1 else next(iter(idle), None)

    def _own_to_leave(self, tenant: str) -> LiveCell | None:
        # It has nearly all there are, so that this does not take long.
        return next((cell for cell in self.host.idle if cell.tenant == tenant), None)

    def _look_for_leavers(self, share: float) -> None:
        """Find some at once: to look through all for each that comes would take longer than to start it."""
        host = self.host
        now = host.clock.monotonic()
        if now < self._none_before:
            return
        census = host.census
        enough = max(16, len(host.idle) // 16)
        for cell, since in host.idle.items():
            if census[cell.tenant] > share:
                self._next_to_leave.append((cell, since))
                if len(self._next_to_leave) >= enough:
                    return
        if not self._next_to_leave:
            self._none_before = now + _LOOK_AGAIN_AFTER

    def add(self, cell: LiveCell) -> LiveCell:
        """Enter `cell`; `make_room` has been asked before."""
        self.cells[cell.address] = cell
        self.host.census.enter(cell.tenant)
        return cell

    def departed(self, cell: LiveCell, outcome: bool | BaseException) -> None:
        """`cell` has left memory, or never came into it: forget it, tell who waits for that, pass its messages on."""
        address = cell.address
        if self.cells.get(address) is cell:
            del self.cells[address]
        if not cell.departing:
            self.host.census.leave(cell.tenant)
        departure = cell.departure
        if cell.state is State.LEAVING and departure is not None:
            _count(self.host.counters, departure)
            told = _observed(departure, outcome)
            self.host.notify(lambda observer: observer.departed(cell, told))
        if departure is Departure.ENDED:
            self.host.supervision.forget(address)
        _announce(cell, outcome)
        if cell.mailbox:
            if departure is not None and departure.redelivers(gated=self.host.gate is not None):
                self._redeliver(cell, departure)
            else:
                fail_waiting(cell, departure or Departure.FAULTED)
        self.wake()

    async def close(self) -> None:
        """Put every actor to sleep, least recently used first, each as soon as it is idle. Ends when all have left, or
        the node does not drain any longer.
        """
        host = self.host
        while host.idle and host.draining:
            leave(next(iter(host.idle)), Departure.PASSIVATED)
            if host.leaving >= host.limits.max_leaving:
                await self.next_departure()
        if host.draining:
            for cell in list(self.cells.values()):
                if cell.quiet:
                    leave(cell, Departure.PASSIVATED)
        await self.emptied()

    async def emptied(self) -> None:
        """Return when no cell is left, or the node does not drain any longer."""
        while self.cells and self.host.draining:
            await self.next_departure()

    def wake(self) -> None:
        """Have all that wait for a departure look again."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def lapse(self) -> None:
        """Have everybody leave, because others may own them: from now on they take nothing, and go as they can."""
        host = self.host
        host.idle.clear()
        quiet = [cell for cell in list(self.cells.values()) if begin_leaving(cell, Departure.LAPSED)]
        if quiet:
            host.spawn(self._let_go(quiet), context=host.context.copy())

    async def _let_go(self, quiet: list[LiveCell]) -> None:
        host = self.host
        for number, cell in enumerate(quiet, 1):
            if not cell.departing:
                go(cell)
            while host.leaving >= host.limits.max_leaving:
                await self.next_departure()
            if not number % _BATCH:
                await asyncio.sleep(0)

    async def next_departure(self) -> None:
        """Return when some cell has left."""
        departure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(departure)
        try:
            await departure
        finally:
            self._waiters.discard(departure)

    def cut(self) -> None:
        """Have everybody leave now."""
        for cell in list(self.cells.values()):
            cut(cell)

    def tenants(self) -> Counter[str]:
        """How many cells each tenant has. Looks at each of them."""
        return Counter(cell.tenant for cell in self.cells.values())

    def addresses(self) -> list[Address]:
        """Whose cells are not about to leave: least recently used first, and after the idle ones the busy."""
        idle = self.host.idle
        busy = [cell.address for cell in self.cells.values() if cell.departure is None and cell not in idle]
        return [cell.address for cell in idle] + busy

    def stats(self) -> dict[str, int]:
        """Plain numbers: where the cells are, and what waits for them. Looks at each of them once."""
        cells = self.cells.values()
        activating = sum(cell.state is State.ACTIVATING for cell in cells)
        return {
            "live": len(cells) - activating - self.host.leaving,
            "activating": activating,
            "leaving": self.host.leaving,
            "idle": len(self.host.idle),
            "waiting": sum(len(cell.mailbox) for cell in cells if cell.mailbox),
        }

    def _redeliver(self, cell: LiveCell, departure: Departure) -> None:
        address = cell.address
        waiting, cell.mailbox = tuple(cell.mailbox or ()), None
        once_more: list[Envelope] = []
        for envelope in waiting:
            try:
                if any(envelope is before for before in cell.redelivered):
                    raise departure.waiting_error(address, gated=self.host.gate is not None)
                self._deliver(address, envelope)
            except (ActorError, Elsewhere) as error:
                fail(envelope.reply, error)
            else:
                once_more.append(envelope)
        successor = self.cells.get(address)
        # To make way for others is no failure: it does not use up a message's second chance.
        if successor is not None and departure is not Departure.PASSIVATED:
            successor.redelivered = tuple(once_more)


def _observed(departure: Departure, outcome: bool | BaseException) -> Departure:
    """Why it left, for observers: an end whose record is there still, or may be, is none."""
    if departure is not Departure.ENDED or isinstance(outcome, bool):
        return departure
    return Departure.LOST if isinstance(outcome, OwnershipLost) else Departure.IN_DOUBT


def _announce(cell: LiveCell, outcome: bool | BaseException) -> None:
    left = cell.left
    if left is None or left.done():
        return
    if isinstance(outcome, bool):
        left.set_result(outcome)
        return
    if isinstance(outcome, asyncio.CancelledError):
        # Not to be mistaken for a cancellation of whoever waits.
        outcome = Departure.CUT.waiting_error(cell.address, gated=False)
    left.set_exception(outcome)
    left.exception()


def _count(counters: Counters, departure: Departure) -> None:
    match departure:
        case Departure.PASSIVATED | Departure.CUT:
            counters.passivated += 1
        case Departure.ENDED:
            counters.ended += 1
        case Departure.LAPSED:
            counters.lapsed += 1
        case Departure.HANDED_OFF:
            counters.handed_off += 1
        case Departure.LOST | Departure.GONE:
            counters.lost += 1
        case Departure.IN_DOUBT:
            counters.in_doubt += 1
        case Departure.FAULTED:
            counters.faults += 1
        case Departure.UNBORN:
            counters.unborn += 1
