"""`Entry`: what the directory says of one address."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..errors import ConfigurationError
from ..link.incarnation import checked_incarnation

__all__ = ["Entry", "is_incarnation", "node_of"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A hint, never a proof: the store's epoch is the judge of who may write."""

    incarnation: str
    """Whose the address is, as a node's id, a dot, and what tells this start from its others; empty while it sleeps."""
    epoch: int
    """The epoch that the incarnation has claimed, or is about to."""
    revision: int
    """The entry's own number in the directory: what a compare-and-set compares."""

    @property
    def asleep(self) -> bool:
        return not self.incarnation


@lru_cache(maxsize=4096)
def node_of(incarnation: str) -> str:
    """The id of the node whose incarnation it is."""
    return incarnation.rpartition(".")[0]


def is_incarnation(text: str) -> bool:
    """Whether `text`, which somebody has written somewhere, can be an incarnation."""
    try:
        checked_incarnation(text)
    except ConfigurationError:
        return False
    return True
