"""`Tally`: how much of something a tenant has in the store, as far as all nodes together know. Sans-I/O.

Sessions sleep and expire in the store without anybody noticing. So what there is was counted once, by a census, and
nodes add what they open, and take away what they see end. What ends unseen makes the tally too high, never too low; it
is counted anew when somebody would have to be refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...actors.packing import pack, unpack

__all__ = ["Tally"]

_FORMAT: Final = 1


@dataclass(slots=True)
class Tally:
    """One tenant's. `counted` says when the census was, in seconds since the Unix epoch."""

    count: int
    """What there is."""
    added: int
    """What was ever added, so that a census knows what came while it was taken."""
    counted: float

    @classmethod
    def unpack(cls, packed: bytes | None) -> Tally | None:
        """The inverse of `pack`; None if nobody has counted yet, or what is there says nothing."""
        if packed is None:
            return None
        try:
            match unpack(packed):
                case [int(version), int(count), int(added), float(counted)] if version == _FORMAT:
                    return cls(count, added, counted)
                case _:
                    return None
        except ValueError:
            return None

    def pack(self) -> bytes:
        return pack([_FORMAT, self.count, self.added, self.counted])

    def age(self, now: float) -> float:
        """Seconds since the census. One in the future, by another node's clock, was just now."""
        return max(0.0, now - self.counted)

    def add(self, count: int) -> None:
        """Enter what has come, or, negative, what has gone."""
        self.count = max(0, self.count + count)
        self.added += max(0, count)

    @classmethod
    def after_census(cls, found: int, before: Tally | None, now: Tally | None, moment: float) -> Tally:
        """What stands after a census that found so much; `before` stood when it began, `now` when it ended.

        What came meanwhile counts on top, though the census may have seen it.
        """
        added = now.added if now is not None else 0
        meanwhile = max(0, added - before.added) if before is not None else added
        return cls(found + meanwhile, added, moment)
