"""`Population`: the cells of a node by address, who makes way for whom, and what follows when one has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..stores import Address
from .answer import fail
from .cell import LiveCell
from .counters import Counters
from .departure import Departure
from .envelope import Envelope
from .errors import ActorError, Elsewhere, NodeDraining, RegistryFull
from .host import Host
from .lifecycle import State, begin_leaving, cut, fail_waiting, go, leave

__all__ = ["Population"]

_RETRY_AFTER = 1.0
_BATCH = 64
"""Actors that begin to leave before the event loop gets to breathe."""


class Population:
    """The registry's table. At most `max_live` cells, and `max_leaving` more that are on their way out."""

    def __init__(self, deliver: Callable[[Address, Envelope], None]) -> None:
        self._deliver = deliver
        self._waiters: set[asyncio.Future[None]] = set()
        self.cells: dict[Address, LiveCell] = {}
        self.host: Host

    def make_room(self, address: Address) -> None:
        """See to it that one more cell, of `address`, may be added: the least recently used idle one makes way.

        Raises:
            NodeDraining: The node takes no more.
            RegistryFull: Every actor is in use.
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
        if len(self.cells) - host.leaving < host.limits.max_live:
            return
        if host.leaving >= host.limits.max_leaving or not host.idle:
            raise RegistryFull(
                f"{address} is not started: all {host.limits.max_live} live actors of this node are in use",
                address,
                retry_after=_RETRY_AFTER,
            )
        leave(next(iter(host.idle)), Departure.PASSIVATED)

    def add(self, cell: LiveCell) -> LiveCell:
        """Enter `cell`; `make_room` has been asked before."""
        self.cells[cell.address] = cell
        return cell

    def departed(self, cell: LiveCell, outcome: bool | BaseException) -> None:
        """`cell` has left memory, or never came into it: forget it, tell who waits for that, pass its messages on."""
        address = cell.address
        if self.cells.get(address) is cell:
            del self.cells[address]
        departure = cell.departure
        if cell.state is State.LEAVING and departure is not None:
            _count(self.host.counters, departure)
            self.host.notify(lambda observer: observer.departed(cell, departure))
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
