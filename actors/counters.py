"""`Counters`: what a registry has done since it started."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Plain totals; `Registry.stats()` reports them under these names."""

    turns_started: int = 0
    turns_failed: int = 0
    """Turns that raised, were cancelled, or could not be saved."""
    deadlines_exceeded: int = 0
    activations: int = 0
    rehydrated: int = 0
    """Activations from a record; the others are new actors."""
    activation_failures: int = 0
    backoffs: int = 0
    """Messages refused because their address failed too often lately."""
    passivated: int = 0
    ended: int = 0
    lapsed: int = 0
    """Actors dropped because the node's lease had run out."""
    handed_off: int = 0
    """Actors that left for another node as planned."""
    lost: int = 0
    """Actors dropped because another owner has claimed, or somebody has deleted, their record."""
    in_doubt: int = 0
    """Actors dropped because it was not known whether a save had taken effect."""
    faults: int = 0
    """Actors dropped because `rollback`, `saved` or the runtime itself raised."""
    unborn: int = 0
    """New actors whose first turn failed or left nothing to save."""
    saves: int = 0
    save_repeats: int = 0
    save_failures: int = 0
    stale_saves: int = 0
    """Those of them that the store refused because another owner has claimed the record since (one-writer)."""
    touches: int = 0
    touch_failures: int = 0
    expired: int = 0
    """Records that this node swept out of the store."""
    expire_failures: int = 0
    close_failures: int = 0
    """`Actor.close` raised, or took too long."""
