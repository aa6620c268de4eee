"""What can keep a message from its turn."""

from __future__ import annotations

from ..stores import Address, UnderstudyError

__all__ = [
    "ActorEnded",
    "ActorError",
    "ActorNotFound",
    "ActorUnavailable",
    "DeadlineExceeded",
    "Elsewhere",
    "MailboxFull",
    "NodeDraining",
    "OwnershipLost",
    "RegistryFull",
    "SnapshotError",
    "SnapshotTooNew",
]


class ActorError(UnderstudyError):
    """A message did not reach a turn, or its outcome is not known."""

    def __init__(self, message: str, address: Address) -> None:
        super().__init__(message)
        self.address = address


class ActorNotFound(ActorError, LookupError):
    """No actor lives or sleeps at this address."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"no actor at {address}: never opened, ended, or expired", address)


class ActorEnded(ActorError):
    """The actor ended while the message waited."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"actor {address} ended before it came to this message", address)


class Elsewhere(Exception):
    """This node may not run a message for `address`; it surely did not run.

    Control flow, not an `UnderstudyError`: whoever knows the other nodes sends the message to one of them.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(f"this node may not act for {address} now; the message has not run")
        self.address = address


class _Retryable(ActorError):
    """Refused for now. `retry_after` is a hint in seconds."""

    def __init__(self, message: str, address: Address, *, retry_after: float) -> None:
        super().__init__(message, address)
        self.retry_after = retry_after


class MailboxFull(_Retryable):
    """The actor has as many messages waiting (or shared turns running) as it may."""


class RegistryFull(_Retryable):
    """The node has as many live actors as it may, and none of them can be put to sleep."""


class NodeDraining(_Retryable):
    """The node is stopping and takes no new work."""


class ActorUnavailable(_Retryable):
    """The actor cannot be activated, or cannot go on, for now: its store is out of reach, or it failed too often.

    `outcome_unknown`: the message's turn ran, and whether its change was saved is not known.
    """

    def __init__(
        self, message: str, address: Address, *, retry_after: float = 1.0, outcome_unknown: bool = False
    ) -> None:
        super().__init__(message, address, retry_after=retry_after)
        self.outcome_unknown = outcome_unknown


class OwnershipLost(_Retryable):
    """Another owner has claimed the record; what the turn changed was not saved here."""


class DeadlineExceeded(ActorError, TimeoutError):
    """The message's deadline passed before its turn was over. `started` tells whether the turn had begun."""

    def __init__(self, address: Address, *, started: bool) -> None:
        state = "while its turn ran" if started else "before its turn began"
        super().__init__(f"deadline of a message to {address} passed {state}", address)
        self.started = started


class TurnCancelled(ActorError):
    """`Registry.ask` only: the turn was cancelled, not the asker. What it changed was rolled back."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"the turn of this message to {address} was cancelled; its changes were rolled back", address)


class UnknownKind(ActorError, LookupError):
    """No kind of this name is registered at this node."""

    def __init__(self, address: Address, known: tuple[str, ...]) -> None:
        names = ", ".join(known) or "none"
        super().__init__(f"address {address} is of kind {address.kind!r}, but this node hosts: {names}", address)
        self.known = known


class OutsideTurn(ActorError, RuntimeError):
    """`Cell.save` was called where nothing can be saved: no exclusive turn runs, or the kind is not durable."""


class SnapshotError(UnderstudyError):
    """A snapshot that cannot be read: truncated, not msgpack, of another shape. The record is left as it is."""


class SnapshotTooNew(SnapshotError):
    """A snapshot of a newer understudy: another node of the cluster may read it, or this one after its upgrade."""
