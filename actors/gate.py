"""`Gate`: a seam for whoever knows what this node may do at the moment: the cluster."""

from __future__ import annotations

from typing import Protocol

from ..stores import Address

__all__ = ["Gate"]


class Gate(Protocol):
    """Asked by the registry, on the event loop, on each message's path: both answers come at once and never raise."""

    def may_run(self) -> bool:
        """Whether the node may start turns now: it holds its lease. Asked before each turn starts."""
        ...

    def may_claim(self, address: Address) -> bool:
        """Whether this node may bring the sleeping actor at `address` to life now, because nobody else owns it."""
        ...
