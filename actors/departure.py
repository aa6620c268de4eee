"""`Departure`: why an actor leaves memory, and what that means for the messages it still has."""

from __future__ import annotations

import asyncio
from enum import Enum

from ..stores import Address
from .errors import ActorEnded, ActorError, ActorNotFound, ActorUnavailable, Elsewhere, NodeDraining, OwnershipLost

__all__ = ["Departure"]


class Departure(Enum):
    """Why an actor leaves memory."""

    PASSIVATED = "passivated"
    """Idle, or in the way of others. Its record stays."""
    ENDED = "ended"
    """`Registry.end` or `Cell.end_soon`. Its record is deleted."""
    LOST = "lost"
    """Another owner has claimed its record."""
    GONE = "gone"
    """Somebody else has deleted its record, or it has expired."""
    IN_DOUBT = "in doubt"
    """Whether its last save took effect is not known; the next claim finds out, and fences what lands late."""
    FAULTED = "faulted"
    """Its own `rollback` or `saved` raised: what it has in memory cannot be trusted."""
    UNBORN = "unborn"
    """The first turn of a new actor failed or left nothing to save: it never existed."""
    CUT = "cut"
    """The node stops and would not wait any longer."""
    LAPSED = "lapsed"
    """The node's lease ran out; another node may own the actor by now."""
    HANDED_OFF = "handed off"
    """A planned move to another node."""

    @property
    def patient(self) -> bool:
        """Whether the turns that run are finished first. Nothing new is started meanwhile."""
        return self is Departure.LAPSED or self is Departure.HANDED_OFF

    def yields_to(self, other: Departure) -> bool:
        """Whether `other` takes the place of this reason while the turns that run are finished."""
        return self.patient and other not in (self, Departure.HANDED_OFF, Departure.PASSIVATED)

    def redelivers(self, *, gated: bool) -> bool:
        """Whether messages that wait, and so never ran, go to the next activation here.

        `gated`: there are other nodes. Then those of an actor that one of them has claimed are for it.
        """
        return self in _REDELIVERS and not (gated and self is Departure.LOST)

    def waiting_error(self, address: Address, *, gated: bool) -> ActorError | Elsewhere:
        """For a message that waits, and so never ran, and will not be redelivered here."""
        match self:
            case Departure.LAPSED | Departure.HANDED_OFF:
                return Elsewhere(address)
            case Departure.LOST if gated:
                return Elsewhere(address)
            case Departure.ENDED:
                return ActorEnded(address)
            case Departure.GONE | Departure.UNBORN:
                return ActorNotFound(address)
            case Departure.CUT:
                return NodeDraining(f"this node stops; {address} wakes at another", address, retry_after=1.0)
            case Departure.LOST:
                return OwnershipLost(
                    f"{address} was claimed by another owner twice while this message waited", address, retry_after=1.0
                )
            case _:
                return ActorUnavailable(f"{address} was dropped ({self.value}) while this message waited", address)

    def running_error(self, address: Address, *, exclusive: bool) -> BaseException:
        """For a turn that the departure cuts short, or whose change it undoes."""
        match self:
            case Departure.LOST:
                return OwnershipLost(
                    f"another owner has claimed {address}; what this turn changed was not saved",
                    address,
                    retry_after=0.1,
                )
            case Departure.IN_DOUBT:
                doubt = "whether what this turn changed was saved is not known" if exclusive else "try again"
                return ActorUnavailable(
                    f"{address} was dropped because its store did not answer; {doubt}",
                    address,
                    outcome_unknown=exclusive,
                )
            case Departure.GONE | Departure.UNBORN:
                return ActorNotFound(address)
            case Departure.FAULTED:
                return ActorUnavailable(
                    f"{address} was dropped after a fault of its own", address, outcome_unknown=exclusive
                )
            case _:
                return asyncio.CancelledError()


_REDELIVERS = frozenset({Departure.PASSIVATED, Departure.LOST, Departure.IN_DOUBT, Departure.FAULTED})
