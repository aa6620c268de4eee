"""What a journey asks to be done, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .entry import Entry

__all__ = [
    "Answered",
    "Denial",
    "Event",
    "Forward",
    "Found",
    "Load",
    "Loaded",
    "LookUp",
    "NoRoomHere",
    "NotRunHere",
    "NotRunThere",
    "PathBroken",
    "Pause",
    "Refuse",
    "Run",
    "Step",
    "Taken",
    "TakenAway",
    "Unreachable",
    "Write",
]


class Denial(Enum):
    """Why a request gets no answer from an actor."""

    UNKNOWN = "unknown"
    """There is no such session."""
    BUSY = "busy"
    """No node has room."""
    UNAVAILABLE = "unavailable"
    """Its owner was not found in time, or this node may not act for now. It has not run."""
    IN_DOUBT = "in doubt"
    """It may have run at a node that is gone (never-run-twice)."""
    ELSEWHERE = "elsewhere"
    """Told to the node that forwarded the request: it is not for this one. `Refuse.entry` says whose, where known."""


# Steps


@dataclass(frozen=True, slots=True)
class Run:
    """Give the request to the actor here, which is brought to life if need be. -> `Answered`, `NotRunHere`,
    `NoRoomHere`."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Read the directory. -> `Found`, `Unreachable`."""


@dataclass(frozen=True, slots=True)
class Load:
    """Read the record without claiming it: the directory knows nothing. -> `Loaded`, `Unreachable`."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write `entry` to the directory if the present one still has `entry.revision`. -> `Taken`, `TakenAway`,
    `Unreachable`."""

    entry: Entry
    striking: str = ""
    """An incarnation whose lease must first be struck from NATS, so that it cannot be renewed: the address is taken
    from it, and it may live all the same. `Unreachable` if that cannot be done; nothing is written then."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the request to `to`. -> `Answered`, `NotRunThere`, `PathBroken`."""

    to: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait, then `Journey.resume`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """The end: tell the client, or the node that forwarded the request, and that one `entry` too."""

    denial: Denial
    entry: Entry | None = None
    """ELSEWHERE: whose it is. BUSY: what this node has let go of, so that another may take it."""


Step = Run | LookUp | Load | Write | Forward | Pause | Refuse


# Events


@dataclass(frozen=True, slots=True)
class Answered:
    """The actor, here or there, has answered, whatever its answer was. The journey is over."""


@dataclass(frozen=True, slots=True)
class NotRunHere:
    """The actor is not here, or left before the request's turn came: it has not run."""


@dataclass(frozen=True, slots=True)
class NoRoomHere:
    """This node takes no more actors. It has not run."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the directory says; None: it has never heard of the address."""

    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Who claimed or created the record last, and its epoch; owner None: there is no record."""

    owner: str | None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """The directory has accepted the entry under this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class TakenAway:
    """The directory's entry is another by now."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The directory or the store does not answer, or answers that it cannot."""


@dataclass(frozen=True, slots=True)
class NotRunThere:
    """The other node refused the request without running it; `entry` is that of its `Refuse`."""

    entry: Entry | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class PathBroken:
    """The other node answers no more."""

    maybe_ran: bool
    """Whether it may have got the request."""
    repeatable: bool = False
    """Whether the request may run twice: a pure read, or annotated `readOnlyHint` or `idempotentHint`."""
    dead: bool = True
    """Whether the node is known to be gone, and not only the path to it for a moment."""

    @property
    def in_doubt(self) -> bool:
        """never-run-twice: the request may have run, and may not run again."""
        return self.maybe_ran and not self.repeatable


Event = Answered | NotRunHere | NoRoomHere | Found | Loaded | Taken | TakenAway | Unreachable | NotRunThere | PathBroken
