"""Turns: one envelope's way through the actor, to its reply. all-or-nothing and reply-is-durable are kept here."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..stores import RecordExists, RecordNotFound, StaleEpoch, StoreUnavailable
from .actor import Access
from .answer import fail, resolve
from .deadline import Deadline
from .departure import Departure
from .envelope import Envelope, Reply
from .errors import ActorNotFound, ActorUnavailable, DeadlineExceeded, Elsewhere
from .lifecycle import farewell, fault, leave

if TYPE_CHECKING:
    from .cell import LiveCell

__all__ = ["exclusive_turn", "save_failed", "shared_turn"]

logger = logging.getLogger("understudy.actors")

_EXCLUSIVE = Access.EXCLUSIVE
_SHARED = Access.SHARED


class _CutShort(BaseException):
    """The cell is leaving: whatever the actor returned must not count."""


async def exclusive_turn(cell: LiveCell, envelope: Envelope) -> None:
    """Let the actor handle `envelope`, save what it changed, answer.

    Never raises but for what ends the process (KeyboardInterrupt, SystemExit, GeneratorExit) and bugs of the runtime.
    A cancellation of the task is this turn's alone: it is taken back, so that the task can go on with the next.
    """
    reply = envelope.reply
    deadline = None
    if envelope.cancelled:
        fail(reply, asyncio.CancelledError())
        return
    if cell.host.gate is not None and not cell.opening and _belongs_elsewhere(cell, envelope):
        fail(reply, Elsewhere(cell.address))
        return
    if envelope.deadline is not None and isinstance(reply, Deadline):
        deadline = reply
        if not deadline.begin(cell.task):
            return
    actor = cell.actor
    writer = cell.writer
    cell.host.counters.turns_started += 1
    cell.interruptible = True
    try:
        result = await actor.receive(envelope.message, _EXCLUSIVE)
        cell.interruptible = False
        if deadline is not None:
            deadline.leave_alone()
        if cell.departure is not None and not cell.departure.patient:
            raise _CutShort
        # The end of an actor is not preceded by a save: the record goes anyway.
        snapshot = None if writer is None or cell.end_after is not None else actor.snapshot()
    except GeneratorExit:  # the event loop is gone: nobody is left to be told
        raise
    except BaseException as error:
        cell.interruptible = False
        _undo(cell, reply, error, deadline)
        return
    if snapshot is not None and not await _commit(cell, reply, snapshot):
        return
    if cell.end_after is not None:
        cell.end_after = None
        farewell(cell, reply, result)
        return
    if cell.opening:
        cell.opening = False
        if writer is not None and not writer.version:
            leave(cell, Departure.UNBORN)
    if reply is not None:
        resolve(reply, result)


async def shared_turn(cell: LiveCell, envelope: Envelope) -> None:
    """Let the actor handle `envelope` beside whatever else it does. Raises as `exclusive_turn`."""
    reply = envelope.reply
    task = asyncio.current_task()
    if cell.host.gate is not None and not envelope.cancelled and _belongs_elsewhere(cell, envelope):
        fail(reply, Elsewhere(cell.address))
        cell.shared_over(None)
        return
    leaving = cell.departure is not None and not cell.departure.patient
    if envelope.cancelled or leaving or task is None:
        fail(reply, _running_error(cell, exclusive=False))
        cell.shared_over(None)
        return
    deadline = None
    if envelope.deadline is not None and isinstance(reply, Deadline):
        deadline = reply
        if not deadline.begin(task):
            cell.shared_over(None)
            return
    if cell.shared is None:
        cell.shared = set()
    cell.shared.add(task)
    cell.host.counters.turns_started += 1
    try:
        result = await cell.actor.receive(envelope.message, _SHARED)
    except GeneratorExit:
        raise
    except BaseException as error:
        cell.host.counters.turns_failed += 1
        fail(reply, _outcome(cell, error, deadline, exclusive=False))
        if _ends_the_process(error):
            raise
        _log_unheard(cell, reply, error)
    else:
        resolve(reply, result)
    cell.shared_over(task)


def _belongs_elsewhere(cell: LiveCell, envelope: Envelope) -> bool:
    """Whether a turn must not start, because another node may own the actor by now."""
    if cell.departure is Departure.LOST:
        return True
    gate = cell.host.gate
    return gate is not None and not envelope.inner and not gate.may_run()


def save_failed(cell: LiveCell, error: BaseException) -> BaseException:
    """A save inside a turn of `cell` raised: drop the cell if it may not go on; what to tell the turn's caller."""
    match error:
        case StoreUnavailable(outcome_unknown=False):
            return ActorUnavailable(
                f"what this turn of {cell.address} changed was not saved: {error}",
                cell.address,
                retry_after=error.retry_after,
            )
        case StaleEpoch():
            leave(cell, Departure.LOST)
        case RecordNotFound():
            leave(cell, Departure.GONE)
            return ActorNotFound(cell.address)
        case RecordExists():
            # What waits here was meant for the actor that has the address already.
            leave(cell, Departure.LOST)
            return error
        case _:
            leave(cell, Departure.IN_DOUBT)
    return _running_error(cell, exclusive=True)


async def _commit(cell: LiveCell, reply: Reply | None, snapshot: bytes) -> bool:
    """Save what the turn changed; False if it could not be, and the caller has been told."""
    writer = cell.writer
    if writer is None:
        return True
    try:
        if cell.save_lock is None:
            await writer.save(snapshot)
        else:
            # A checkpoint of a task that outlived its turn may still be under way.
            async with cell.save_lock:
                await writer.save(snapshot)
    except GeneratorExit:
        raise
    except BaseException as cause:
        error = save_failed(cell, cause)
        if error is not cause:
            error.__cause__ = cause
        _undo(cell, reply, error, None)
        if _ends_the_process(cause):
            raise
        return False
    try:
        cell.actor.saved()
    except Exception:
        logger.exception("saved() of %s raised; the actor is dropped", cell.address)
        fault(cell)
    return True


def _undo(cell: LiveCell, reply: Reply | None, error: BaseException, deadline: Deadline | None) -> None:
    """A turn failed with `error`: roll the actor back and tell the caller."""
    cell.host.counters.turns_failed += 1
    if cell.task is not None:
        while cell.task.cancelling():
            cell.task.uncancel()
    try:
        cell.actor.rollback()
    except Exception:
        logger.exception("rollback() of %s raised; the actor is dropped", cell.address)
        fault(cell)
    outcome = _outcome(cell, error, deadline, exclusive=True)
    if cell.save_lock is not None and cell.save_lock.locked():
        # A checkpoint of a task that outlives its turn may yet land: memory and record would part ways.
        leave(cell, Departure.IN_DOUBT)
    if cell.end_after is not None:
        cell.end_after = None
        leave(cell, Departure.ENDED)
    if cell.opening:
        cell.opening = False
        if cell.writer is None or not cell.writer.version:
            leave(cell, Departure.UNBORN)
    fail(reply, outcome)
    if _ends_the_process(error):
        raise error
    _log_unheard(cell, reply, error)


def _outcome(cell: LiveCell, error: BaseException, deadline: Deadline | None, *, exclusive: bool) -> BaseException:
    if deadline is not None and deadline.expired and isinstance(error, asyncio.CancelledError):
        return DeadlineExceeded(cell.address, started=True)
    if isinstance(error, _CutShort) or (isinstance(error, asyncio.CancelledError) and cell.departure is not None):
        return _running_error(cell, exclusive=exclusive)
    # What ends the process is not the caller's to handle.
    return asyncio.CancelledError() if _ends_the_process(error) else error


def _running_error(cell: LiveCell, *, exclusive: bool) -> BaseException:
    if cell.departure is None:
        return asyncio.CancelledError()
    return cell.departure.running_error(cell.address, exclusive=exclusive)


def _ends_the_process(error: BaseException) -> bool:
    return not isinstance(error, (Exception, asyncio.CancelledError, _CutShort))


def _log_unheard(cell: LiveCell, reply: Reply | None, error: BaseException) -> None:
    if reply is None and isinstance(error, Exception):
        logger.warning("a message to %s that nobody waits for failed", cell.address, exc_info=error)
