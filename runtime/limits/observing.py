"""`LimitingObserver`: tells the limiter which sessions exist no more."""

from __future__ import annotations

from ...actors import Observer
from ...actors.actor import Cell
from ...actors.departure import Departure
from ...actors.session import SessionActor
from ...stores import Address
from .limiter import Limiter

__all__ = ["LimitingObserver"]


class LimitingObserver:
    """An `Observer` that passes everything on to `inner`."""

    def __init__(self, limiter: Limiter, inner: Observer | None) -> None:
        self._limiter = limiter
        self._inner = inner

    def activated(self, cell: Cell, *, rehydrated: bool) -> None:
        """See `Observer`."""
        if self._inner is not None:
            self._inner.activated(cell, rehydrated=rehydrated)

    def departed(self, cell: Cell, departure: Departure) -> None:
        """See `Observer`."""
        actor: object = getattr(cell, "actor", None)
        # One that is found gone may have been so when the last census was taken: the next one tells.
        if departure is Departure.ENDED and isinstance(actor, SessionActor):
            self._limiter.ended(actor.snap.tenant, len(actor.snap.state))
        if self._inner is not None:
            self._inner.departed(cell, departure)

    def absent(self, address: Address) -> None:
        """See `Observer`."""
        if self._inner is not None:
            self._inner.absent(address)
