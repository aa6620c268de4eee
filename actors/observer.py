"""`Observer`: a seam for whoever must know which actors are in memory: a directory, metrics, a live page."""

from __future__ import annotations

from typing import Protocol

from ..stores import Address
from .actor import Cell
from .departure import Departure

__all__ = ["Observer"]


class Observer(Protocol):
    """Told of each arrival and departure, on the event loop. Must be quick; a raise is logged and goes no further."""

    def activated(self, cell: Cell, *, rehydrated: bool) -> None:
        """The actor is live, before its first turn. A new one (`rehydrated` False) has no record yet."""
        ...

    def departed(self, cell: Cell, departure: Departure) -> None:
        """The actor has left memory. Not called for one that could not be activated."""
        ...

    def absent(self, address: Address) -> None:
        """An actor was to be woken, and there is no record of it."""
        ...
