"""How an actor comes into memory, and how it leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..stores import RecordNotFound, StaleEpoch, StoreUnavailable
from .actor import Actor
from .clock import within
from .departure import Departure
from .errors import ActorNotFound, ActorUnavailable, OwnershipLost
from .host import logger

if TYPE_CHECKING:
    from .cell import LiveCell

__all__ = ["activate", "depart"]


async def activate(cell: LiveCell, seed: Any, *, fresh: bool) -> None:
    """Bring `cell`'s actor to life: from its record, or new. Never raises, but for what ends the process.

    Messages wait in the mailbox meanwhile; if there will be no actor they are answered with the reason.
    """
    cell.interruptible = True
    host = cell.host
    rehydrates = cell.writer is not None and not fresh
    try:
        if cell.departure is Departure.CUT:
            raise asyncio.CancelledError
        actor = await _awaken(cell) if rehydrates else await _create(cell, seed)
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


async def depart(cell: LiveCell) -> None:
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
    finally:
        host.leaving -= 1
        host.departed(cell, outcome)


async def _awaken(cell: LiveCell) -> Actor:
    writer = cell.writer
    if writer is None:
        raise ActorNotFound(cell.address)
    record = await writer.claim()
    cell.tenant = record.tenant
    return await within(cell.host.clock, cell.host.limits.activation_timeout, cell.kind.rehydrate(cell, record))


async def _create(cell: LiveCell, seed: Any) -> Actor:
    return await within(cell.host.clock, cell.host.limits.activation_timeout, cell.kind.create(cell, seed))


def _failed(cell: LiveCell, error: BaseException, *, remember: bool) -> None:
    """There will be no actor. A missing record is the caller's mistake, not the actor's: nothing is remembered."""
    host = cell.host
    address = cell.address
    departure = cell.departure
    if departure is Departure.CUT or not isinstance(error, Exception):
        cell.fail_waiting(Departure.CUT)
    elif isinstance(error, RecordNotFound):
        cell.fail_all(lambda: ActorNotFound(address))
    else:
        host.counters.activation_failures += 1
        if remember:
            host.supervision.activation_failed(address, error)
        if isinstance(error, (StoreUnavailable, TimeoutError)):
            retry_after = error.retry_after if isinstance(error, StoreUnavailable) else 1.0
            cell.fail_all(
                lambda: ActorUnavailable(
                    f"{address} cannot be activated for now: {error}", address, retry_after=retry_after
                )
            )
        else:
            cell.fail_all(lambda: error)
    cell.task = None
    host.departed(cell, False if isinstance(error, RecordNotFound) else error)


async def _stillness(cell: LiveCell) -> None:
    cell.still = asyncio.get_running_loop().create_future()

    async def wait(still: asyncio.Future[None]) -> None:
        await still

    try:
        await within(cell.host.clock, cell.host.limits.close_timeout, wait(cell.still))
    except TimeoutError:
        logger.warning("%s is %s, but a turn of it goes on after its cancellation", cell.address, cell.departure)


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
