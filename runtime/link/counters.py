"""What a link counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LinkCounters"]


@dataclass(slots=True)
class LinkCounters:
    """Since the link was made."""

    forwarded: int = 0
    """Calls that `forward` took."""
    served: int = 0
    """Calls of peers that were run."""
    not_run: int = 0
    """Forwarded calls that a peer refused."""
    refused: int = 0
    """Calls of peers that were refused here."""
    failed: int = 0
    """Forwarded calls that a peer gave up on."""
    given_up: int = 0
    """Calls of peers that ended here without a complete response."""
    gone: int = 0
    """Forwarded calls whose peer was gone."""
    cancelled: int = 0
    """Calls of peers whose caller left before the response was complete."""
    batches_out: int = 0
    batches_in: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    unsent: int = 0
    """Batches that the wire did not take; they go again."""
    corrupt: int = 0
    foreign: int = 0
    forged: int = 0
    """Batches dropped because their seal is not their sender's, or of a key that does not open here."""
    unsealed_refused: int = 0
    """Batches dropped because they have no seal."""
    unsealed_taken: int = 0
    """Batches without a seal that were taken, because this node may."""
    stale: int = 0
    """Batches of a life of a path that is over."""
    late: int = 0
    """Frames of calls that have ended."""
    no_responders: int = 0
    pings: int = 0
    paths_lost: int = 0
    """Lives of paths that ended: the peer was gone, or had given up on us."""
    retransmitted: int = 0
    duplicates: int = 0
    reordered: int = 0
    overflowed: int = 0
    """Batches dropped because too many before them were missing."""
