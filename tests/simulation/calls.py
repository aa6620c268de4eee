"""`Call`: what a client wants of a session, and what has come of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from understudy.stores import Address

__all__ = ["NOT_RUN", "Call", "Status"]


class Status:
    OK = "ok"
    NOT_SAVED = "not saved"
    IN_DOUBT = "in doubt"
    """May have run, may have been saved."""
    UNAVAILABLE = "unavailable"
    """Has not run."""
    BUSY = "busy"
    """Has not run."""
    NO_SESSION = "no session"
    BROKEN = "broken"
    """The node that the client talked to has died."""


NOT_RUN = frozenset({Status.UNAVAILABLE, Status.BUSY, Status.NO_SESSION})


@dataclass(slots=True)
class Call:
    """An `add` appends its id to the session's log and returns its length; it must not be repeated. A `set` makes sure
    that its id is in the log; a `read` returns the log."""

    id: str
    kind: str
    address: Address
    started: float
    node: str
    """Where the client sends it."""
    turns: int = 0
    incarnation: str = ""
    """Whose turn it was."""
    status: str = ""
    ended: float = 0.0
    result: tuple[str, ...] = ()
    """The log, as the call left it or read it."""
    corrections: int = 0
    owners: set[str] = field(default_factory=set[str])

    @property
    def repeatable(self) -> bool:
        return self.kind != "add"

    def __str__(self) -> str:
        return f"{self.kind} {self.id} of {self.address.id} at {self.node}"
