"""`Counts`: what a node of a cluster has done since it started."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counts"]


@dataclass(slots=True)
class Counts:
    """Plain totals; `Cluster.stats()` reports them under these names."""

    forwards: int = 0
    """Requests sent to another node."""
    forwards_served: int = 0
    """Requests of other nodes handled here."""
    hops_corrected: int = 0
    """Forwards to a node that was not the owner any more."""
    paths_broken: int = 0
    """Forwards whose node answered no more."""
    placed: int = 0
    """Sessions that another node opened, because this one had no room or drained."""
    claims_won: int = 0
    """Addresses taken from the directory."""
    claims_lost: int = 0
    """Times that another node was quicker to take one."""
    handed_off: int = 0
    lease_losses: int = 0
    failovers: int = 0
    """Requests that went on at another node after theirs had died."""
    streams_reattached: int = 0
    """Clients' streams that went on at another owner, or at the same one by another path, without their notice."""
