"""`Record`: what a store keeps for one actor."""

from __future__ import annotations

from dataclasses import dataclass

from .address import Address

__all__ = ["Page", "Record", "RecordInfo"]


@dataclass(frozen=True, slots=True)
class RecordInfo:
    """A record without its snapshot. Times are seconds since the Unix epoch by the store's clock."""

    address: Address
    tenant: str
    epoch: int
    """Fencing number: 1 at creation, raised by each claim. A write under any other epoch is refused."""
    version: int
    """Number of the last snapshot: 1 at creation, raised by each save; a claim leaves it alone."""
    owner: str
    """Who created or claimed it last: a hint for people and routing, never a proof."""
    created: float
    updated: float
    expires: float


@dataclass(frozen=True, slots=True)
class Record(RecordInfo):
    """A record with its snapshot: opaque bytes to the store, versioned msgpack to the actor that wrote them."""

    snapshot: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """One page of `SessionStore.list`. `cursor` is None on the last page."""

    records: tuple[RecordInfo, ...]
    cursor: str | None
