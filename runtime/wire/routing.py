"""`Router`: the seam where a cluster sends a request to the node that may serve it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from mcp_types import RequestId

from ...actors import Gate, NodeDraining, Observer, RegistryFull
from ...actors.session.announcement import Announce
from ...actors.session.wire import Refusal, refusal_of
from ...stores import Address, UnderstudyError
from .inbound import Inbound
from .refusals import Refused

__all__ = ["Leg", "NoRoom", "Placement", "Router", "refused"]

Leg = Callable[[Inbound], Awaitable[None]]
"""Serves a request at this node.

Raises:
    Elsewhere: It has not run, and this node may not run it. The head of an event stream and events that say nothing may
        have been sent by then; if so the response is left open, and whoever serves the request goes on with it.
    NoRoom: It has not run, and nothing was sent.
    Refused: Nothing was sent.
"""


class Router(Protocol):
    """Finds the node for a request."""

    async def route(self, inbound: Inbound, address: Address | None, run: Leg) -> None:
        """Have `inbound` answered: with `run`, here, or by another node.

        `address` is the session that the headers name; None if they name none, or none that could be. That proves
        nothing: there may be no such session, and in the modern era the call may turn out to want none. For an address
        that no node has, `run` gives the answer that the client should get.

        Raises:
            Refused: The answer, if nothing was sent before. `NoRoom`, which `run` has raised, is one.
            Elsewhere: Nobody could serve it, and nothing was sent before: the client is told to try again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """What makes a node one of many. Without any of it, it is alone."""

    gate: Gate | None = None
    """Says what the node may run."""
    router: Router | None = None
    """Sends requests to other nodes."""
    observer: Observer | None = None
    """Told of sessions that come into memory, and leave it."""
    announce: Announce | None = None
    """Awaited for each new session, before its client learns of it."""
    writer: Callable[[], str] | None = None
    """What this node is called in the event log, for as long as it lives."""
    writer_alive: Callable[[str], bool] | None = None
    """Whether another node that is so called may live."""
    takers: Callable[[], bool] | None = None
    """Whether another node takes the sessions that this one hands off."""


class NoRoom(Refused):
    """This node has no room for the session that the request would open or wake; another may have some.

    Answered like any other `Refused`, it is what the client of a single node is told.
    """

    def __init__(
        self,
        address: Address | None,
        error: RegistryFull | NodeDraining,
        refusal: Refusal,
        request_id: RequestId | None,
    ) -> None:
        super().__init__(refusal, request_id)
        self.address = address
        """The session to wake; None if a new one is to be opened."""
        self.error = error


def refused(error: UnderstudyError, address: Address, request_id: RequestId | None = None) -> Refused:
    """What to raise where `error` keeps a handshake-era request from the session at `address`."""
    refusal = refusal_of(error, modern=False)
    if isinstance(error, RegistryFull | NodeDraining):
        return NoRoom(address, error, refusal, request_id)
    return Refused(refusal, request_id)
