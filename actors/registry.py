"""`Registry`: a node's table of live actors. Activates them on first use, supervises them, puts them to sleep."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from random import Random
from types import TracebackType
from typing import Any, Self

import anyio

from ..stores import Address, Record, RecordExists, SessionStore, StoreUnavailable
from . import dismissal
from .actor import Access, Actor, ActorKind
from .cell import LiveCell
from .clock import Clock, SystemClock, within
from .counters import Counters
from .envelope import AskerReply, Envelope
from .errors import ActorUnavailable, Elsewhere, UnknownKind
from .gate import Gate
from .glimpse import Glimpse, glimpse
from .host import Host, Limits
from .lifecycle import State
from .observer import Observer
from .population import Population
from .supervision import RestartPolicy, Supervision
from .sweeper import Sweeper
from .writer import Storage

__all__ = ["Registry"]

_EXCLUSIVE = Access.EXCLUSIVE


class Registry:
    """One node's actors. Use it as `async with Registry(...) as registry:`, on one event loop.

    Leaving the block drains it, see `drain`. All times are in seconds.

    Args:
        store: Where durable actors are remembered. The registry does not close it.
        kinds: The kinds of actors that this node hosts.
        owner: This node's name in the records it writes.
        clock: Monotonic time; tests bring a `ManualClock`.
        max_live: Actors in memory. At the bound the least recently used idle one leaves; if none is idle:
            `RegistryFull`.
        idle_after: How long an actor stays in memory unused; never longer than its record's lifetime.
        mailbox_size: Messages that may wait for one actor.
        shared_limit: Shared turns of one actor that may run at once.
        store_timeout: For each call of the store.
        activation_timeout: For `ActorKind.create` and `rehydrate`.
        close_timeout: For `Actor.close`, and for turns to heed their cancellation.
        drain_timeout: For the drain at the end of the block.
        restarts: How much failure is borne before an address is refused for a while.
        sweep_every: Between two looks at the idle actors; by default a quarter of `idle_after`, at most 10 s.
        expire_every: Between two sweeps of expired records out of the store.
        memory_pressure: Asked at each sweep; while it says True the least recently used idle actors leave.
        fair: Whether those tenants make way first that have more than an equal share of `max_live`; and none has more
            than seven eighths of it. Otherwise the least recently used of all do.
        observer: Told of arrivals and departures.
        gate: Says what this node may do as one of a cluster; None: it is alone and may do everything. Where the gate
            says no, messages are refused, or their replies fail, with `Elsewhere`.
        random: For jitter.
        wall: Seconds since the Unix epoch, as the store's clock has them.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        kinds: Iterable[ActorKind],
        owner: str = "local",
        clock: Clock | None = None,
        max_live: int = 100_000,
        idle_after: float = 300.0,
        mailbox_size: int = 1024,
        shared_limit: int = 256,
        store_timeout: float = 5.0,
        activation_timeout: float = 30.0,
        close_timeout: float = 5.0,
        drain_timeout: float = 30.0,
        restarts: RestartPolicy | None = None,
        sweep_every: float | None = None,
        expire_every: float = 60.0,
        memory_pressure: Callable[[], bool] | None = None,
        fair: bool = False,
        observer: Observer | None = None,
        gate: Gate | None = None,
        random: Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        clock = clock or SystemClock()
        random = random or Random()
        self._kinds = {kind.name: kind for kind in kinds}
        lifetimes = [kind.ttl for kind in self._kinds.values() if kind.durable]
        idle_after = min([idle_after, *lifetimes])
        self._clock = clock
        self._gate = gate
        self._counters = Counters()
        self._population = Population(self.deliver)
        self._cells = self._population.cells
        self._storage = Storage(store, owner, store_timeout, clock, wall, random, self._counters)
        self._supervision = Supervision(restarts or RestartPolicy(), clock.monotonic, random)
        self._host = Host(
            clock=clock,
            counters=self._counters,
            limits=Limits(
                max_live=max_live,
                mailbox_size=mailbox_size,
                shared_limit=shared_limit,
                idle_after=idle_after,
                activation_timeout=activation_timeout,
                close_timeout=close_timeout,
                fair=fair,
            ),
            storage=self._storage,
            supervision=self._supervision,
            observer=observer,
            gate=gate,
            departed=self._population.departed,
        )
        self._population.host = self._host
        self._drain_timeout = drain_timeout
        self._tasks = asyncio.TaskGroup()
        self._housekeeping: list[asyncio.Task[None]] = []
        self._running = False
        self._sweeper = Sweeper(
            self._host,
            self._population,
            shortest_ttl=min(lifetimes, default=86_400.0),
            sweep_every=min(idle_after / 4, 10.0) if sweep_every is None else sweep_every,
            expire_every=expire_every,
            memory_pressure=memory_pressure,
        )

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._host.context = contextvars.copy_context()
        self._host.spawn = self._tasks.create_task
        self._host.draining = False
        self._running = True
        self._housekeeping = [
            self._tasks.create_task(self._sweeper.sweep_forever(), name="understudy-sweep"),
            self._tasks.create_task(self._sweeper.expire_forever(), name="understudy-expire"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running = False
        # A cancelled scope of anyio would cancel every await in here anew; the drain has its own bound.
        with anyio.CancelScope(shield=True):
            try:
                await self.drain(self._drain_timeout)
            except BaseException:
                # Cancelled once more, while it drained: nothing is waited for any longer.
                self._population.cut()
                raise
            finally:
                for task in self._housekeeping:
                    task.cancel()
                for turn in tuple(self._host.waiting):
                    self._tasks.create_task(_ended(turn))
                # Without the block's own error, which a task group would wrap.
                await self._tasks.__aexit__(None, None, None)

    # Messages.

    def deliver(self, address: Address, envelope: Envelope) -> None:
        """Take a message to the actor at `address`, which is activated if it is not live. Never waits.

        What goes wrong later fails `envelope.reply`: `ActorNotFound`, `ActorUnavailable` or `SnapshotError` if the
        actor cannot be activated, `ActorEnded`, `OwnershipLost`, `DeadlineExceeded`, or what the turn raises.

        Raises:
            MailboxFull: The actor takes no more.
            RegistryFull: The node takes no more actors.
            NodeDraining: The actor is not live, and the node stops.
            ActorUnavailable: The actor failed too often lately.
            ActorEnded: The actor is ending.
            UnknownKind: This node hosts no such actors.
            Elsewhere: The gate does not let this node run it; or the actor leaves for another node.
        """
        cell = self._cells.get(address)
        gate = self._gate
        if gate is not None:
            allowed = gate.may_run() and gate.may_claim(address) if cell is None else envelope.inner or gate.may_run()
            if not allowed:
                raise Elsewhere(address)
        if cell is not None:
            cell.accept(envelope)
            return
        kind = self._kind(address)
        try:
            self._supervision.check(address)
        except ActorUnavailable:
            self._counters.backoffs += 1
            raise
        self._population.make_room(address)
        self._population.add(LiveCell(self._host, address, kind, "")).activate(envelope, fresh=not kind.durable)

    def open(self, address: Address, seed: Any, tenant: str, envelope: Envelope) -> None:
        """Start a new actor of `tenant` with its first message. Never waits.

        The actor's record is created by the save after this turn. If the turn fails, or changes nothing, there
        is no record and the actor is dropped; its reply is what the turn gave.

        Args:
            seed: Passed to `ActorKind.create`.
            envelope: Exclusive.

        Raises:
            RecordExists: An actor is live at `address`. (One that sleeps there is found by the first save.)
            ValueError: The envelope is not exclusive.
            RegistryFull, NodeDraining, UnknownKind: As `deliver`.
            Elsewhere: The gate does not let this node run anything.
        """
        if self._gate is not None and not self._gate.may_run():
            raise Elsewhere(address)
        if envelope.access is not _EXCLUSIVE:
            raise ValueError(f"the first message to {address} must be exclusive: its turn creates the record")
        if address in self._cells:
            raise RecordExists(address)
        kind = self._kind(address)
        self._population.make_room(address, tenant)
        self._population.add(LiveCell(self._host, address, kind, tenant)).activate(
            envelope, seed=seed, fresh=True, opening=True
        )

    def tell(self, address: Address, message: Any, *, access: Access = _EXCLUSIVE) -> None:
        """Deliver a message that nobody waits for. Raises as `deliver`; what its turn raises is logged."""
        cell = self._cells.get(address)
        if cell is not None and self._gate is None:
            cell.accept(Envelope(message, access))
        else:
            self.deliver(address, Envelope(message, access))

    async def ask(
        self,
        address: Address,
        message: Any,
        *,
        access: Access = _EXCLUSIVE,
        timeout: float | None = None,
        inner: bool = False,
    ) -> Any:
        """Deliver a message and wait for what its turn returns. `inner`: see `Envelope.inner`.

        Cancellation withdraws the message if its turn has not started; a turn that runs goes on.

        Raises:
            DeadlineExceeded: `timeout` seconds have passed; `started` tells whether the turn had begun.
            TurnCancelled: The turn was cancelled: by the actor, or because it ended or the node stopped.
            ActorError: As `deliver`.
            Exception: What the turn raised.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        envelope = Envelope(message, access, AskerReply(future, address), deadline, inner=inner)
        self.deliver(address, envelope)
        try:
            return await future
        except asyncio.CancelledError:
            envelope.cancel()
            raise

    # Actors.

    def live(self, address: Address) -> Actor | None:
        """The actor at `address` if it is in memory and not being closed, for signals that never queue.

        It may be one whose last turn runs (it has lost its record, say): signals must still reach that turn. To look
        does not count as a use.
        """
        cell = self._cells.get(address)
        return None if cell is None or cell.departing or cell.state is State.ACTIVATING else cell.actor

    async def peek(self, address: Address) -> Record | None:
        """The record at `address` as it was last saved; None if there is none, or the kind has none. Nothing is claimed
        and nobody is woken: for whoever must know of an actor before it may be disturbed.

        Raises:
            ActorUnavailable: The store is out of reach.
            UnknownKind: This node hosts no such actors.
        """
        if not self._kind(address).durable:
            return None
        try:
            return await self._storage.bounded(self._storage.store.load(address))
        except StoreUnavailable as error:
            raise ActorUnavailable(
                f"{address} cannot be activated for now: {error}", address, retry_after=error.retry_after
            ) from error

    def pin(self, address: Address) -> bool:
        """Keep a live actor in memory until `unpin` has been called as often; False if it is not live."""
        cell = self._cells.get(address)
        if cell is None or cell.state is not State.LIVE:
            return False
        cell.pin()
        return True

    def unpin(self, address: Address) -> None:
        """Undo one `pin`. Does nothing if the actor has left memory since."""
        cell = self._cells.get(address)
        if cell is not None and cell.pins:
            cell.unpin()

    async def end(self, address: Address) -> bool:
        """End the actor at `address` and delete its record; False if there was none.

        Turns that run are cancelled, messages that wait fail with `ActorEnded`. Cancelling this call does not stop
        the end of a live actor.

        Raises:
            OwnershipLost: Another owner has claimed the record since; it is not deleted.
            ActorUnavailable: The record is, or may be, still there.
            Elsewhere: The gate does not let this node end it, or another owner has claimed the record; it is there.
        """
        return await dismissal.end(address, self._cells, self._host, self._kind)

    async def passivate(self, address: Address) -> bool:
        """Put a live actor to sleep; False if it is not live, or busy, or pinned. Nothing is written."""
        return await dismissal.passivate(address, self._cells, self._host)

    async def hand_off(self, address: Address) -> bool:
        """Have the actor leave memory for another node; True when it has, False if it was not live.

        The turns that run are finished and saved first, however long they take, a new actor's first turn included.
        Messages that wait, or come meanwhile, fail with `Elsewhere`. Also False if it left for another reason: it
        ended, say, or another owner has it already. Cancelling this call does not stop the actor from leaving.
        """
        return await dismissal.hand_off(address, self._cells)

    @property
    def count(self) -> int:
        """How many actors are in memory, or on their way in or out."""
        return len(self._cells)

    def tenants(self) -> Counter[str]:
        """How many actors of each tenant are in memory, or on their way in or out. Looks at each of them."""
        return self._population.tenants()

    def addresses(self) -> list[Address]:
        """Who is in memory and not about to leave it: least recently used first, and after the idle ones the busy."""
        return self._population.addresses()

    def glimpse(self, address: Address) -> Glimpse | None:
        """What can be seen of the actor at `address`; None if it is not in memory. Does not count as a use."""
        cell = self._cells.get(address)
        return None if cell is None else glimpse(cell)

    # The node.

    def lapse(self) -> None:
        """Drop every actor, because this node's lease has run out and others may own them by now. Never waits.

        From this call on none of them takes anything: messages that wait, or come while it leaves, fail with
        `Elsewhere`. Quiet actors are closed in the background. Turns that run are finished first, and the store judges
        what they save.
        """
        self._population.lapse()

    def close_door(self) -> None:
        """Take no new actors, nor wake any that sleep, until `reopen`; those that live stay. `NodeDraining` says so."""
        self._host.door_closed = True

    def reopen(self) -> None:
        """Take new actors again, after `close_door` or `drain`. A drain that is under way ends; who has left has left.

        Raises:
            RuntimeError: The registry has not started, or its block is being left.
        """
        if not self._running:
            raise RuntimeError("the registry does not run: only inside `async with registry:` can it be reopened")
        self._host.draining = self._host.door_closed = False
        self._population.wake()

    async def drain(self, timeout: float) -> bool:
        """Take no new actors, finish the turns that run or wait, close all actors; True if that took no force.

        The least recently used ones are closed first, busy ones when they are done. After `timeout` seconds turns
        that still run are cancelled and messages that still wait fail with `NodeDraining`.
        Cancelling this call leaves the registry draining. False too if `reopen` has ended it.
        """
        self._host.draining = True
        try:
            await within(self._clock, timeout, self._population.close())
        except TimeoutError:
            pass
        else:
            return self._host.draining
        if not self._host.draining:
            return False
        self._population.cut()
        with suppress(TimeoutError):
            await within(self._clock, self._host.limits.close_timeout * 2, self._population.emptied())
        return False

    def stats(self) -> dict[str, int]:
        """Plain numbers: what is so now, and the totals of `Counters`. Looks at each live cell once."""
        return {**self._population.stats(), "refused_addresses": len(self._supervision), **asdict(self._counters)}

    def __contains__(self, address: Address) -> bool:
        return address in self._cells

    def __len__(self) -> int:
        """Actors in memory, those on their way in or out included."""
        return len(self._cells)

    def _kind(self, address: Address) -> ActorKind:
        kind = self._kinds.get(address.kind)
        if kind is None:
            raise UnknownKind(address, tuple(self._kinds))
        return kind


async def _ended(turn: asyncio.Task[None]) -> None:
    """Cancelled, it cancels the turn, and returns all the same when that has ended."""
    await turn
