"""`SessionEnds`: an observer of the node's actors for whoever must know which sessions are over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...actors import Observer
from ...actors.actor import Cell
from ...actors.departure import Departure
from ...actors.session import SessionActor
from ...actors.session.snapshot import SessionSnapshot
from ...stores import Address

__all__ = ["SessionEnded", "SessionEnds"]

SessionEnded = Callable[[Address, SessionSnapshot, Departure], None]
"""Told of a session, as it was last saved, and whether it was ended (`ENDED`) or found to be so (`GONE`)."""


class SessionEnds:
    """An `Observer` that tells `heard_by` of sessions that are over, and passes everything on to `inner`."""

    def __init__(self, heard_by: Sequence[SessionEnded], inner: Observer | None) -> None:
        self._heard_by = heard_by
        self._inner = inner

    def activated(self, cell: Cell, *, rehydrated: bool) -> None:
        """See `Observer`."""
        if self._inner is not None:
            self._inner.activated(cell, rehydrated=rehydrated)

    def departed(self, cell: Cell, departure: Departure) -> None:
        """See `Observer`."""
        if departure is Departure.ENDED or departure is Departure.GONE:
            actor: object = getattr(cell, "actor", None)
            if isinstance(actor, SessionActor):
                for heard in self._heard_by:
                    heard(cell.address, actor.snap, departure)
        if self._inner is not None:
            self._inner.departed(cell, departure)

    def absent(self, address: Address) -> None:
        """See `Observer`."""
        if self._inner is not None:
            self._inner.absent(address)
