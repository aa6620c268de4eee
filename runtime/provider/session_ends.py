"""`SessionEnds`: an observer of the node's actors for whoever must know which sessions are over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from ...actors import Observer
from ...actors.actor import Cell
from ...actors.departure import Departure
from ...actors.errors import SnapshotError
from ...actors.session import SessionActor
from ...actors.session.snapshot import SessionSnapshot
from ...stores import Address, Record

__all__ = ["REMEMBERED", "SessionEnded", "SessionEnds", "snapshot_of"]

REMEMBERED: Final = 4096
"""Sessions whose end was told of lately: it is told of once, though it was seen and an operator says it too."""

SessionEnded = Callable[[Address, SessionSnapshot, Departure], None]
"""Told of a session, as it was last saved, and whether it was ended (`ENDED`) or found to be so (`GONE`)."""


class SessionEnds:
    """An `Observer` that tells `heard_by` of sessions that are over, each once, and passes everything on to `inner`."""

    def __init__(self, heard_by: Sequence[SessionEnded], inner: Observer | None) -> None:
        self._heard_by = heard_by
        self._inner = inner
        self._ended: OrderedDict[Address, None] = OrderedDict()

    def activated(self, cell: Cell, *, rehydrated: bool) -> None:
        """See `Observer`."""
        if self._inner is not None:
            self._inner.activated(cell, rehydrated=rehydrated)

    def departed(self, cell: Cell, departure: Departure) -> None:
        """See `Observer`."""
        if departure is Departure.ENDED or departure is Departure.GONE:
            actor: object = getattr(cell, "actor", None)
            if isinstance(actor, SessionActor):
                self._tell(cell.address, actor.snap, departure)
        if self._inner is not None:
            self._inner.departed(cell, departure)

    def ended_asleep(self, record: Record) -> None:
        """A session was ended by deleting this record of it, though no node had it in memory."""
        self._tell(record.address, snapshot_of(record), Departure.ENDED)

    def _tell(self, address: Address, session: SessionSnapshot, departure: Departure) -> None:
        if address in self._ended:
            return
        self._ended[address] = None
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        for heard in self._heard_by:
            heard(address, session, departure)

    def absent(self, address: Address) -> None:
        """See `Observer`."""
        if self._inner is not None:
            self._inner.absent(address)


def snapshot_of(record: Record) -> SessionSnapshot:
    """A session as its record has it; of one that cannot be read, what the record itself says."""
    try:
        return SessionSnapshot.unpack(record.snapshot)
    except SnapshotError:
        return SessionSnapshot("handle", record.tenant, "", "")
