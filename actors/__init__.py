"""What runs: actors with a mailbox, turns, supervision. Knows nothing of MCP."""

from .actor import Access, Actor, ActorKind, Cell
from .clock import Clock, SystemClock
from .departure import Departure
from .envelope import Envelope, FutureReply, Reply
from .errors import (
    ActorEnded,
    ActorError,
    ActorNotFound,
    ActorUnavailable,
    DeadlineExceeded,
    Elsewhere,
    MailboxFull,
    NodeDraining,
    OutsideTurn,
    OwnershipLost,
    RegistryFull,
    SnapshotError,
    SnapshotTooNew,
    TurnCancelled,
    UnknownKind,
)
from .gate import Gate
from .observer import Observer
from .registry import Registry
from .supervision import RestartPolicy

__all__ = [
    "Access",
    "Actor",
    "ActorEnded",
    "ActorError",
    "ActorKind",
    "ActorNotFound",
    "ActorUnavailable",
    "Cell",
    "Clock",
    "DeadlineExceeded",
    "Departure",
    "Elsewhere",
    "Envelope",
    "FutureReply",
    "Gate",
    "MailboxFull",
    "NodeDraining",
    "Observer",
    "OutsideTurn",
    "OwnershipLost",
    "Registry",
    "RegistryFull",
    "Reply",
    "RestartPolicy",
    "SnapshotError",
    "SnapshotTooNew",
    "SystemClock",
    "TurnCancelled",
    "UnknownKind",
]
