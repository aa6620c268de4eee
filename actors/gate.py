"""`Gate`: a seam for whoever knows what this node may do at the moment: the cluster."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from ..stores import Address

__all__ = ["Gate"]


class Gate(Protocol):
    """Asked by the registry, on the event loop. The answers on each message's path come at once; none ever raises."""

    def may_run(self) -> bool:
        """Whether the node may start turns now: it holds its lease. Asked before each turn starts."""
        ...

    def may_claim(self, address: Address) -> bool:
        """Whether this node may bring the sleeping actor at `address` to life now, because nobody else owns it."""
        ...

    def claimed(self, address: Address, epoch: int) -> Awaitable[bool] | None:
        """The store has given `epoch` to this node; whether turns may run under it.

        None: yes. Otherwise what tells, once it has asked: False if another node may own the actor by now.
        """
        ...
