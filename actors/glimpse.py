"""`Glimpse`: what can be seen of a live actor from outside, for people who operate the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .cell import LiveCell

__all__ = ["Glimpse", "glimpse"]


class Glimpse(NamedTuple):
    """One moment of one actor in memory."""

    tenant: str
    epoch: int
    """0 while it has no record yet, or is none that has one."""
    version: int
    busy: bool
    """Whether it is on its way in or out, or a turn of it runs."""
    reading: int
    """Shared turns that run."""
    waiting: int
    """Messages that wait for their turn."""


def glimpse(cell: LiveCell) -> Glimpse:
    """Look, which does not count as a use."""
    record = cell.record
    return Glimpse(
        cell.tenant,
        record.epoch if record is not None else 0,
        record.version if record is not None else 0,
        not cell.quiet,
        cell.shared_count,
        len(cell.mailbox or ()),
    )
