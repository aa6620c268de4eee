"""`Actor` and `ActorKind`: what a kind of actor must offer to be hosted. Nothing here knows MCP."""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

from ..stores import Address, Record

__all__ = ["Access", "Actor", "ActorKind", "Cell"]


class Access(Enum):
    """How a message is handled beside others of the same actor."""

    EXCLUSIVE = "exclusive"
    """One at a time, in order of arrival, through the mailbox; may change state, which is saved before the reply."""
    SHARED = "shared"
    """At once, beside every other turn; must not change state."""


class Cell(Protocol):
    """An actor's view of the registry that hosts it."""

    @property
    def address(self) -> Address: ...

    @property
    def tenant(self) -> str: ...

    @property
    def record(self) -> Record | None:
        """The record as claimed, created or last saved by this cell; None before the first save of a new actor."""
        ...

    async def save(self, snapshot: bytes) -> None:
        """Make `snapshot` durable now: a checkpoint inside an exclusive turn.

        A cancellation while it waits leaves the outcome unknown: the turn fails and the actor is dropped.

        Raises:
            StaleEpoch: Another owner has claimed the record; this actor is being dropped.
            RecordNotFound: The record was deleted or has expired; this actor is being dropped.
            StoreUnavailable: Not saved, or not known to be (`outcome_unknown`); then this actor is being dropped.
            OutsideTurn: No exclusive turn runs, or the kind is not durable.
        """
        ...

    def end_soon(self) -> None:
        """End this actor (record deleted, waiting messages failed) as soon as the turn that calls this is over.

        An exclusive turn that asks for it saves nothing, and its caller gets the result once the record is gone.
        Called outside every turn, it ends the actor at once.
        """
        ...

    def pin(self) -> None:
        """Keep this actor in memory, however long idle, until `unpin` has been called as often as `pin`."""
        ...

    def unpin(self) -> None:
        """Undo one `pin`."""
        ...


class Actor(Protocol):
    """One live actor. All methods run on the node's event loop.

    A turn is one call of `receive`. After an exclusive turn that returned, the registry asks `snapshot()`; if it
    is not None it is saved, `saved()` is called, and only then the caller gets the result (reply-is-durable). After one
    that raised, was cancelled, or could not be saved, `rollback()` is called instead (all-or-nothing).
    """

    async def receive(self, message: Any, access: Access) -> Any:
        """Handle one message. What it returns goes to the caller, what it raises fails the caller, not the actor."""
        ...

    def snapshot(self) -> bytes | None:
        """The state to save, or None if the turn changed nothing. A raise fails the turn and rolls it back."""
        ...

    def saved(self) -> None:
        """The last `snapshot()` is durable."""
        ...

    def rollback(self) -> None:
        """Forget what the turn changed: back to the last saved state."""
        ...

    async def close(self) -> None:
        """Let go of what cannot be saved, before passivation or the end. Bounded by the registry; a raise is logged."""
        ...


class ActorKind(Protocol):
    """A kind of actor: how its actors are brought to life. Registered under `name`, the kind of their addresses."""

    @property
    def name(self) -> str: ...

    @property
    def durable(self) -> bool:
        """False: never stored; an address without a live actor starts a fresh one, passivation forgets it."""
        ...

    @property
    def ttl(self) -> float:
        """Seconds that a record outlives its last use."""
        ...

    async def create(self, cell: Cell, seed: Any) -> Actor:
        """A new actor that has no record yet; `seed` is what `Registry.open` was given (None where not durable)."""
        ...

    async def rehydrate(self, cell: Cell, record: Record) -> Actor:
        """An actor from its record.

        Raises:
            SnapshotError: The snapshot cannot be read; the record is left as it is.
        """
        ...
