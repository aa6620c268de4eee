"""`Lives`: the number that the next life of the path to a peer has."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["Lives"]

MAX_REMEMBERED: Final = 4096


class Lives:
    """A path that one end gave up on must not be taken for the one that comes after it.

    So both ends count its lives, from 1 on, and the higher number wins. Only peers that were given up on are
    remembered.
    """

    __slots__ = ("_first", "_next")

    def __init__(self) -> None:
        self._first = 1
        self._next: OrderedDict[str, int] = OrderedDict()

    def next(self, peer: str) -> int:
        """The number of a path to `peer` that begins now."""
        return self._next.get(peer, self._first)

    def over(self, peer: str, number: int) -> None:
        """The life `number` of the path to `peer` is over."""
        self._next[peer] = max(number + 1, self.next(peer))
        self._next.move_to_end(peer)
        if len(self._next) > MAX_REMEMBERED:
            _, forgotten = self._next.popitem(last=False)
            # Whoever is forgotten begins above all that it may have had.
            self._first = max(self._first, forgotten)
