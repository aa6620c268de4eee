"""`BusNumbers`: finds out whether anything of what the other nodes publish on the bus has been missed. Sans-I/O.

Each node numbers what it publishes, from 1, failures included. A number that is skipped shows with the next one; what
was lost last shows with the number that the node tells in its lease.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

__all__ = ["BusNumbers"]

ABSENT: Final = 3
"""Looks that a node may be missing from the leases before it is taken for dead: one that stops says goodbye on the bus
some time after it has given back its lease, and one that starts publishes before its first lease has come round."""
MAX_ORIGINS: Final = 8192


class _Origin:
    __slots__ = ("absent", "due", "heard", "seen")

    def __init__(self, heard: int) -> None:
        self.heard = heard
        """The last number that has come."""
        self.seen = heard
        """What `heard` was at the last look."""
        self.due = heard
        """What it had published at the last look, as its lease told."""
        self.absent = 0


class BusNumbers:
    """Of all nodes that publish, by their origins: a name that a node takes anew each time it attaches to the bus."""

    def __init__(self, told: Mapping[str, int] | None = None) -> None:
        """`told`: what the leases told when this node began to listen. What came before that is none of its own."""
        self._origins: OrderedDict[str, _Origin] = OrderedDict(
            (origin, _Origin(last)) for origin, last in (told or {}).items()
        )

    def heard(self, origin: str, number: int) -> bool:
        """A publication has come; True if others of the same origin, before it, have not."""
        known = self._origins.get(origin)
        missed = False
        if known is None:
            known, missed = self._add(origin, 0)
        missed = missed or number > known.heard + 1
        # Lower than what has come already: it was overtaken, which has been told.
        known.heard = max(known.heard, number)
        return missed

    def goodbye(self, origin: str, number: int) -> bool:
        """The origin has published its last, under this number; True as `heard`."""
        missed = self.heard(origin, number)
        del self._origins[origin]
        return missed

    def look(self, told: Mapping[str, int]) -> list[str]:
        """To be called once per renewal, with what the leases of the living nodes tell by now.

        The origins of which something was missed: it was published a look ago, and neither has it come since nor
        anything else of that origin; or the node is gone without a goodbye, and its last words may be lost.
        """
        missed: list[str] = []
        for origin, last in told.items():
            known = self._origins.get(origin)
            if known is None:
                known, crowded = self._add(origin, 0)
                if crowded:
                    missed.append(origin)
            known.absent = 0
            if known.due > known.heard == known.seen:
                missed.append(origin)
                known.heard = known.due
            known.due = max(known.due, last)
            known.seen = known.heard
        for origin, known in list(self._origins.items()):
            if origin not in told:
                known.absent += 1
                if known.absent >= ABSENT:
                    del self._origins[origin]
                    missed.append(origin)
        return missed

    def _add(self, origin: str, heard: int) -> tuple[_Origin, bool]:
        """A new one, and whether another had to make room."""
        known = self._origins[origin] = _Origin(heard)
        crowded = len(self._origins) > MAX_ORIGINS
        if crowded:
            self._origins.popitem(last=False)
        return known, crowded

    def __len__(self) -> int:
        return len(self._origins)
