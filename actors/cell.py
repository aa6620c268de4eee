"""`LiveCell`: one actor in memory, its mailbox, and whose turn it is."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from time import perf_counter
from typing import Any

from ..stores import Address, Record
from .actor import Access, Actor, ActorKind
from .answer import fail
from .at_once import ready_task
from .deadline import Deadline
from .departure import Departure
from .envelope import Envelope
from .errors import MailboxFull, OutsideTurn
from .foreign_errors import ends_the_task
from .host import Host
from .lifecycle import State, activate, fault, go, leave
from .mailbox import Mailbox
from .turn import exclusive_turn, save_failed, shared_turn
from .writer import RecordWriter

__all__ = ["LiveCell"]

logger = logging.getLogger("understudy.actors")


_LIVE = State.LIVE
_SHARED = Access.SHARED

_BREATH = 256
_BREATH_SECONDS = 0.001
"""A task that runs turn after turn lets the event loop breathe after so many, or so long, even if no turn waits."""
_GLANCE = 16
"""Turns between two looks at the time."""
_RETRY_AFTER = 0.5


class LiveCell:
    """The `Cell` of one actor. Everything here runs on the event loop and none of it waits.

    The baton of exclusive turns is `task`: whoever runs is in it, and passes it on with `pass_on`. Messages that find
    it taken wait in the mailbox. When it rests, the cell owns no task, no timer and no mailbox.
    """

    __slots__ = (
        "actor",
        "address",
        "departing",
        "departure",
        "end_after",
        "host",
        "interruptible",
        "kind",
        "left",
        "mailbox",
        "opening",
        "pins",
        "redelivered",
        "save_lock",
        "shared",
        "shared_count",
        "state",
        "still",
        "task",
        "tenant",
        "writer",
    )

    def __init__(self, host: Host, address: Address, kind: ActorKind, tenant: str) -> None:
        self.host = host
        self.address = address
        self.kind = kind
        self.tenant = tenant
        self.state = State.ACTIVATING
        self.actor: Actor  # there from the state LIVE on
        self.writer = RecordWriter(host.storage, address, tenant, kind.ttl) if kind.durable else None
        self.mailbox: Mailbox | None = None
        self.task: asyncio.Task[Any] | None = None
        """The exclusive turn, or the activation, that runs."""
        self.interruptible = False
        """Whether cancelling `task` stops the actor's own code; False while its outcome is being saved."""
        self.shared: set[asyncio.Task[Any]] | None = None
        self.shared_count = 0
        """Shared turns that run or are about to; while activating, those that wait."""
        self.opening = False
        """A new actor whose first turn is not over."""
        self.pins = 0
        self.departure: Departure | None = None
        self.departing = False
        """Its way out has begun: `leave` may have to wait for the exclusive turn first."""
        self.end_after: asyncio.Task[Any] | None = None
        self.left: asyncio.Future[bool] | None = None
        self.still: asyncio.Future[None] | None = None
        self.redelivered: tuple[Envelope, ...] = ()
        """What waits here for the second time, because a first activation was lost."""
        self.save_lock: asyncio.Lock | None = None

    # What the actor sees: the `Cell` protocol.

    @property
    def record(self) -> Record | None:
        return None if self.writer is None else self.writer.record

    async def save(self, snapshot: bytes) -> None:
        """See `Cell.save`."""
        if self.writer is None:
            raise OutsideTurn(f"actors of kind {self.address.kind!r} are not durable: nothing to save", self.address)
        if self.task is None or not self.interruptible or self.state is State.ACTIVATING:
            raise OutsideTurn(f"{self.address} can be saved only inside an exclusive turn", self.address)
        if self.save_lock is None:
            self.save_lock = asyncio.Lock()
        async with self.save_lock:
            try:
                await self.writer.save(snapshot)
            except BaseException as error:
                save_failed(self, error)
                raise

    def end_soon(self) -> None:
        """See `Cell.end_soon`."""
        departure = self.departure
        if (departure is not None and not departure.patient) or self.end_after is not None:
            return
        caller = _current_task()
        if self.shared is not None and caller in self.shared:
            self.end_after = caller
        elif self.state is not State.ACTIVATING and self.task is not None and self.interruptible:
            # The caller may be a child task of the turn, so that "some turn runs" has to be enough.
            self.end_after = self.task
        else:
            leave(self, Departure.ENDED)

    def pin(self) -> None:
        """See `Cell.pin`."""
        self.pins += 1
        self.host.idle.pop(self, None)

    def unpin(self) -> None:
        """See `Cell.unpin`."""
        self.pins = max(0, self.pins - 1)
        if not self.pins and self.quiet:
            self.host.rest(self)

    # Messages.

    @property
    def quiet(self) -> bool:
        """Live, and nothing runs or waits."""
        return self.state is _LIVE and self.task is None and not self.shared_count and not self.mailbox

    def accept(self, envelope: Envelope) -> None:
        """Start the message's turn, or queue it.

        Raises:
            MailboxFull: No room.
            ActorError: The actor is leaving for good; which one says why.
            Elsewhere: It leaves for another node.
        """
        if self.state is not _LIVE:
            self._wait(envelope)
        elif envelope.access is _SHARED:
            if self.shared_count >= self.host.limits.shared_limit:
                raise self._full(f"{self.shared_count} shared turns run")
            self.shared_count += 1
            if (context := _context_at_once(envelope)) is not None:
                self._begin_shared(envelope, context)
            else:
                self._start_shared(envelope)
        elif self.task is None:
            if (context := _context_at_once(envelope)) is not None:
                self._begin_exclusive(envelope, context)
            else:
                self._start_exclusive(envelope)
        else:
            mailbox = self.mailbox
            if mailbox is None or len(mailbox) >= mailbox.limit:
                self._queue(envelope)
            else:
                mailbox.append(envelope)
        if envelope.deadline is not None and type(envelope.reply) is not Deadline:
            Deadline(envelope, self.address, envelope.deadline, self.host.clock, self.host.counters)

    def activate(self, envelope: Envelope, *, seed: Any = None, fresh: bool, opening: bool = False) -> None:
        """Begin to bring the actor to life, with its first message."""
        self.opening = opening
        self.accept(envelope)
        self.task = self.host.spawn(activate(self, seed, fresh=fresh), context=self.host.context.copy())

    def activated(self, actor: Actor) -> None:
        """The actor is there: start what has waited for it."""
        self.actor = actor
        self.state = _LIVE if self.departure is None else State.LEAVING
        waiting = self.mailbox
        if waiting is not None and self.shared_count:
            shared = [envelope for envelope in waiting if envelope.access is _SHARED]
            exclusive = [envelope for envelope in waiting if envelope.access is not _SHARED]
            waiting.clear()
            waiting.extend(exclusive)
            self.shared_count = len(shared)
            for envelope in shared:
                self._start_shared(envelope)
        self.pass_on()

    # The baton.

    async def exclusive_task(self, envelope: Envelope) -> None:
        """The turn of `envelope` and, if it has no context of its own, of those that follow it and have none."""
        turns, since = 0, perf_counter()
        try:
            await exclusive_turn(self, envelope)
            if envelope.context is None:
                while (mailbox := self.mailbox) and self.departure is None and mailbox[0].context is None:
                    envelope = mailbox.popleft()
                    await exclusive_turn(self, envelope)
                    turns += 1
                    if not turns % _GLANCE and (not turns % _BREATH or perf_counter() - since > _BREATH_SECONDS):
                        await _breathe()
                        since = perf_counter()
        except (Exception, GeneratorExit) as error:
            # TaskGroup: a child that raised would take the whole node with it. So would a GeneratorExit out of a
            # future that a turn awaits: Python throws it into this, the outermost coroutine, though the turn is over.
            if ends_the_task(error):
                raise
            logger.exception("internal error in a turn of %s; the actor is dropped", self.address)
            fault(self)
            fail(envelope.reply, Departure.FAULTED.running_error(self.address, exclusive=True))
        self.pass_on()

    def pass_on(self) -> None:
        """Nobody has the baton: give it to the next message, or rest, or leave."""
        self.task = None
        self.interruptible = False
        if self.departure is not None and not (self.departure.patient and (self.mailbox or self.shared_count)):
            go(self)
        elif self.mailbox:
            self._start_exclusive(self.mailbox.popleft())
        else:
            self.mailbox = None
            self.redelivered = ()
            self.save_lock = None
            if not self.shared_count:
                self.host.rest(self)

    def shared_over(self, task: asyncio.Task[Any] | None) -> None:
        """A shared turn is over; `task` if it had begun."""
        self.shared_count -= 1
        if self.shared is not None:
            if task is not None:
                self.shared.discard(task)
            if not self.shared:
                self.shared = None
        if task is not None and self.end_after is task:
            self.end_after = None
            leave(self, Departure.ENDED)
        elif self.departure is not None:
            if self.task is None and not (self.departure.patient and self.shared_count):
                go(self)
        elif self.quiet:
            self.host.rest(self)

    def interrupt(self) -> None:
        """Cancel what runs."""
        if self.interruptible and self.task is not None:
            self.task.cancel()
        for task in tuple(self.shared or ()):
            task.cancel()

    def when_left(self) -> asyncio.Future[bool]:
        """Done when the cell has left; its result says whether there was anything to end."""
        if self.left is None:
            self.left = asyncio.get_running_loop().create_future()
        return self.left

    def _start_exclusive(self, envelope: Envelope) -> None:
        host = self.host
        host.idle.pop(self, None)
        context = envelope.context
        self.task = host.spawn(
            self.exclusive_task(envelope), context=host.context.copy() if context is None else context
        )

    def _start_shared(self, envelope: Envelope) -> None:
        host = self.host
        host.idle.pop(self, None)
        context = envelope.context
        host.spawn(shared_turn(self, envelope), context=host.context.copy() if context is None else context)

    def _begin_exclusive(self, envelope: Envelope, context: Context) -> None:
        host = self.host
        host.idle.pop(self, None)
        # Who has the baton must be known before the turn begins: it may have given it back when `begin` returns.
        task, begin = ready_task(self.exclusive_task(envelope), context)
        self.task = task
        begin()
        host.began(task)

    def _begin_shared(self, envelope: Envelope, context: Context) -> None:
        host = self.host
        host.idle.pop(self, None)
        task, begin = ready_task(shared_turn(self, envelope), context)
        begin()
        host.began(task)

    def _queue(self, envelope: Envelope) -> None:
        mailbox = self.mailbox
        if mailbox is None:
            mailbox = self.mailbox = Mailbox(self.host.limits.mailbox_size)
        if not mailbox.put(envelope):
            raise self._full(f"{len(mailbox)} messages wait")

    def _wait(self, envelope: Envelope) -> None:
        departure = self.departure
        if departure is not None:
            gated = self.host.gate is not None
            if departure.patient and envelope.inner and not self.departing:
                self._accept_inner(envelope)
                return
            if not departure.redelivers(gated=gated):
                raise departure.waiting_error(self.address, gated=gated)
        if self.state is State.ACTIVATING and envelope.access is _SHARED:
            if self.shared_count >= self.host.limits.shared_limit:
                raise self._full(f"{self.shared_count} shared messages wait")
            self._queue(envelope)
            self.shared_count += 1
        else:
            self._queue(envelope)

    def _accept_inner(self, envelope: Envelope) -> None:
        """The turn that sent it is finished before the actor leaves, and so is this."""
        if self.task is None:
            self._start_exclusive(envelope)
        else:
            self._queue(envelope)

    def _full(self, why: str) -> MailboxFull:
        return MailboxFull(f"{self.address} takes no more for now: {why}", self.address, retry_after=_RETRY_AFTER)


def _context_at_once(envelope: Envelope) -> Context | None:
    """In which the turn of `envelope` begins at once; None if it begins with the next turn of the event loop."""
    return envelope.context if envelope.at_once and envelope.deadline is None else None


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def _breathe() -> None:
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        # Between two turns there is nothing to cancel, and the messages that wait need this task.
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
