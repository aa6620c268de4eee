"""The path between nodes: forwarded calls, their streams and cancels, over NATS or any wire like it."""

from .errors import CallFailed, LinkClosed, LinkError, NotRun, PeerGone, Unsendable
from .head import CallHead
from .inbound import InboundCall
from .link import Link
from .seals import Seals
from .versions import OLDEST, SEALED, VERSION, Versions, negotiate
from .wire import Wire, WireEvents

__all__ = [
    "OLDEST",
    "SEALED",
    "VERSION",
    "CallFailed",
    "CallHead",
    "InboundCall",
    "Link",
    "LinkClosed",
    "LinkError",
    "NotRun",
    "PeerGone",
    "Seals",
    "Unsendable",
    "Versions",
    "Wire",
    "WireEvents",
    "negotiate",
]
