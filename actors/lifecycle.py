"""How an actor comes into memory, and how it leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..stores import RecordNotFound, StaleEpoch, StoreUnavailable
from .actor import Actor
from .answer import fail, resolve
from .clock import within
from .departure import Departure
from .envelope import Envelope, Reply
from .errors import ActorNotFound, ActorUnavailable, Elsewhere, OwnershipLost

if TYPE_CHECKING:
    from .cell import LiveCell

__all__ = ["State", "activate", "begin_leaving", "cut", "fail_waiting", "farewell", "fault", "go", "leave"]

logger = logging.getLogger("understudy.actors")


class State(Enum):
    """Where a cell is on its way; `departure` says why it leaves."""

    ACTIVATING = "activating"
    LIVE = "live"
    LEAVING = "leaving"


async def activate(cell: LiveCell, seed: Any, *, fresh: bool) -> None:
    """Bring `cell`'s actor to life: from its record, or new. Never raises, but for what ends the process.

    Messages wait in the mailbox meanwhile; if there will be no actor they are answered with the reason.
    """
    cell.interruptible = True
    host = cell.host
    rehydrates = cell.writer is not None and not fresh
    try:
        actor = await _awaken(cell) if rehydrates else await _create(cell, seed)
    except GeneratorExit:
        raise
    except BaseException as error:
        _failed(cell, error, remember=not (fresh and cell.kind.durable))
        if not isinstance(error, (Exception, asyncio.CancelledError)):
            raise
        return
    counters = host.counters
    counters.activations += 1
    counters.rehydrated += rehydrates
    host.supervision.activated(cell.address)
    host.notify(lambda observer: observer.activated(cell, rehydrated=rehydrates))
    cell.activated(actor)


def leave(cell: LiveCell, departure: Departure) -> None:
    """Have `cell` leave memory for this reason, unless it has one that stands: now, or when its exclusive turn is over.

    An end cancels that turn; the others let it find out by itself that it cannot save; a patient departure waits for
    the shared turns too. An activation under way is finished first, and a new actor's first turn.
    """
    if begin_leaving(cell, departure):
        cell.interrupt()
        go(cell)


def begin_leaving(cell: LiveCell, departure: Departure) -> bool:
    """Note why `cell` leaves, unless it has a reason that stands: it takes nothing more. Whether it may `go` now."""
    before = cell.departure
    if before is not None and (cell.departing or not before.yields_to(departure)):
        return False
    cell.departure = departure
    patient = departure.patient
    if patient or departure is Departure.ENDED:
        fail_waiting(cell, departure)
    if cell.state is State.ACTIVATING:
        return False
    cell.state = State.LEAVING
    if patient:
        return cell.task is None and not cell.shared_count
    return cell.task is None or departure is Departure.ENDED


def cut(cell: LiveCell) -> None:
    """Have `cell` leave now, whatever runs or waits, an activation included."""
    leave(cell, Departure.CUT)
    fail_waiting(cell, Departure.CUT)
    cell.interrupt()
    if cell.state is State.LEAVING:
        go(cell)


def fault(cell: LiveCell) -> None:
    """The actor, or its cell, cannot be trusted any more."""
    cell.host.supervision.faulted(cell.address)
    leave(cell, Departure.FAULTED)


def farewell(cell: LiveCell, reply: Reply | None, result: Any) -> None:
    """The turn that asked for the end is over; its caller hears of it when the record is gone."""

    def tell(left: asyncio.Future[bool]) -> None:
        error = left.exception()
        if error is None:
            resolve(reply, result)
        else:
            fail(reply, error)

    cell.when_left().add_done_callback(tell)
    leave(cell, Departure.ENDED)


def go(cell: LiveCell) -> None:
    """`cell` may leave now, or has come to rest while it does."""
    if not cell.departing:
        cell.departing = True
        cell.state = State.LEAVING
        cell.host.idle.pop(cell, None)
        cell.host.leaving += 1
        cell.host.census.leave(cell.tenant)
        departing = _depart(cell)
        try:
            cell.host.spawn(departing, context=cell.host.context.copy())
        except RuntimeError:
            # The registry's task group has been aborted by what ends the process: nothing is put in order any more.
            departing.close()
    elif cell.still is not None and cell.task is None and not cell.shared_count and not cell.still.done():
        cell.still.set_result(None)


def fail_waiting(cell: LiveCell, departure: Departure) -> None:
    """Answer every message that waits with what `departure` means for it.

    A patient departure spares what is finished first: the opening of a new actor, and what running turns wait for.
    """
    gated = cell.host.gate is not None
    mailbox = cell.mailbox
    spared: list[Envelope] = []
    if mailbox and departure.patient:
        opening = mailbox[0] if cell.opening and cell.state is State.ACTIVATING else None
        spared = [envelope for envelope in mailbox if envelope.inner or envelope is opening]
        others = [envelope for envelope in mailbox if not (envelope.inner or envelope is opening)]
        mailbox.clear()
        mailbox.extend(others)
    _fail_all(cell, lambda: departure.waiting_error(cell.address, gated=gated))
    if mailbox is not None and spared:
        mailbox.clear()
        mailbox.extend(spared)
        cell.mailbox = mailbox


def _fail_all(cell: LiveCell, error: Callable[[], BaseException]) -> None:
    waiting, cell.mailbox = cell.mailbox or (), None
    if cell.state is State.ACTIVATING:
        cell.shared_count = 0
    for envelope in waiting:
        fail(envelope.reply, error())


async def _depart(cell: LiveCell) -> None:
    """Take `cell` out of memory: stop what runs, delete the record if it ends, close the actor. Never raises.

    Each step is bounded, so that an actor that ignores its cancellation or hangs in `close` goes nevertheless.
    """
    host = cell.host
    outcome: bool | BaseException = True
    try:
        if cell.shared_count or cell.task is not None:
            cell.interrupt()
            await _stillness(cell)
        if cell.departure is Departure.ENDED and cell.writer is not None:
            outcome = await _delete(cell)
        await _close(cell)
    except asyncio.CancelledError as error:
        outcome = error
    except Exception as error:
        logger.exception("internal error while %s left memory", cell.address)
        outcome = error
    host.leaving -= 1
    host.departed(cell, outcome)


async def _awaken(cell: LiveCell) -> Actor:
    writer = cell.writer
    if writer is None:
        raise ActorNotFound(cell.address)
    record = await writer.claim()
    cell.tenant = record.tenant
    cell.host.census.enter(record.tenant)
    gate = cell.host.gate
    answer = None if gate is None else gate.claimed(cell.address, record.epoch)
    if answer is not None and not await answer:
        raise Elsewhere(cell.address)
    return await within(cell.host.clock, cell.host.limits.activation_timeout, cell.kind.rehydrate(cell, record))


async def _create(cell: LiveCell, seed: Any) -> Actor:
    return await within(cell.host.clock, cell.host.limits.activation_timeout, cell.kind.create(cell, seed))


def _failed(cell: LiveCell, error: BaseException, *, remember: bool) -> None:
    """There will be no actor. A missing record is the caller's mistake, not the actor's: nothing is remembered."""
    host = cell.host
    address = cell.address
    departure = cell.departure
    if departure is Departure.CUT or not isinstance(error, Exception):
        fail_waiting(cell, Departure.CUT)
    elif isinstance(error, RecordNotFound):
        host.notify(lambda observer: observer.absent(address))
        _fail_all(cell, lambda: ActorNotFound(address))
    elif isinstance(error, Elsewhere):
        _fail_all(cell, lambda: Elsewhere(address))
    else:
        host.counters.activation_failures += 1
        if remember:
            host.supervision.activation_failed(address, error)
        if isinstance(error, (StoreUnavailable, TimeoutError)):
            retry_after = error.retry_after if isinstance(error, StoreUnavailable) else 1.0
            _fail_all(
                cell,
                lambda: ActorUnavailable(
                    f"{address} cannot be activated for now: {error}", address, retry_after=retry_after
                ),
            )
        else:
            _fail_all(cell, lambda: error)
    cell.task = None
    host.departed(cell, False if isinstance(error, RecordNotFound) else error)


async def _stillness(cell: LiveCell) -> None:
    cell.still = asyncio.get_running_loop().create_future()

    async def wait(still: asyncio.Future[None]) -> None:
        await still

    try:
        await within(cell.host.clock, cell.host.limits.close_timeout, wait(cell.still))
    except TimeoutError:
        why = cell.departure.value if cell.departure is not None else "leaving"
        logger.warning("%s is %s, but a turn of it goes on after its cancellation", cell.address, why)


async def _delete(cell: LiveCell) -> bool | BaseException:
    writer = cell.writer
    if writer is None:
        return True
    try:
        return await writer.delete()
    except StaleEpoch:
        return OwnershipLost(
            f"{cell.address} was not deleted: another owner has claimed it", cell.address, retry_after=0.1
        )
    except StoreUnavailable as error:
        return ActorUnavailable(
            f"{cell.address} has stopped, but its record may still be there: {error}",
            cell.address,
            retry_after=error.retry_after,
            outcome_unknown=error.outcome_unknown,
        )


async def _close(cell: LiveCell) -> None:
    try:
        await within(cell.host.clock, cell.host.limits.close_timeout, cell.actor.close())
    except Exception:
        cell.host.counters.close_failures += 1
        logger.warning("close() of %s failed", cell.address, exc_info=True)
