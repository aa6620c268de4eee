"""The path between nodes: forwarded calls, their streams and cancels, over NATS or any wire like it."""

from .errors import CallFailed, LinkClosed, LinkError, NotRun, PeerGone, Unsendable
from .head import CallHead
from .inbound import InboundCall
from .link import Link
from .versions import OLDEST, VERSION, Versions, negotiate
from .wire import Wire, WireEvents

__all__ = [
    "OLDEST",
    "VERSION",
    "CallFailed",
    "CallHead",
    "InboundCall",
    "Link",
    "LinkClosed",
    "LinkError",
    "NotRun",
    "PeerGone",
    "Unsendable",
    "Versions",
    "Wire",
    "WireEvents",
    "negotiate",
]
