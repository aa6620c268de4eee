"""`Ledger`: what is used of one limit, by all nodes together. Sans-I/O: time comes in through parameters.

A token is free, held by a node that has drawn it ahead of need, or spent. One that was spent is free again a minute
after it was spent, so that no minute ever sees more than the limit, while a burst of the whole limit is allowed. What a
node holds it has either still in hand, or has spent and not said so yet; so it counts until the node says otherwise.
Permits (calls in flight, open streams) are only ever held.

Moments are seconds since the Unix epoch, by the clock of whoever writes. Where two nodes' clocks differ by d seconds, a
minute may be shorter by d; what a fast clock has dated in the future counts as spent now, so that it is never longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from ...actors.packing import pack, unpack

__all__ = ["MAX_HOLDERS", "TICK", "WINDOW", "Holding", "Ledger", "tick_of"]

TICK: Final = 0.5
"""Seconds: as exactly as this it is known when a token was spent."""
WINDOW: Final = 60.0
"""Seconds that a spent token stays away, and up to a `TICK` longer."""
_TICKS: Final = round(WINDOW / TICK)
UNHEARD: Final = 60.0
"""Seconds after which a holder that was never heard of counts as dead. A living one tells of itself much sooner."""
MAX_HOLDERS: Final = 1024
"""Above it those that have not written for longest are taken for dead."""
_FORMAT: Final = 1
_MOST: Final = 2**62


def tick_of(moment: float) -> int:
    """The tick that a moment falls into."""
    return int(moment // TICK)


class Holding(NamedTuple):
    """What one node has of a limit."""

    tokens: int
    written: int
    """The tick in which the node wrote it."""
    serial: int
    """The number of the node's last report that is in the ledger, so that none is entered twice."""


@dataclass(slots=True)
class Ledger:
    """One limit's record. Bounded: a spent count for each tick of a minute, a holding for each node."""

    spent: dict[int, int] = field(default_factory=dict[int, int])
    held: dict[str, Holding] = field(default_factory=dict[str, Holding])

    @classmethod
    def unpack(cls, packed: bytes | None) -> Ledger:
        """The inverse of `pack`; None is the ledger of what nobody has used.

        Raises:
            ValueError: It is none, or of another version.
        """
        if packed is None:
            return cls()
        match unpack(packed):
            case [int(version), spent, held] if (
                version == _FORMAT and isinstance(spent, dict) and isinstance(held, dict)
            ):
                return cls(_counts(cast("dict[Any, Any]", spent)), _holdings(cast("dict[Any, Any]", held)))
            case _:
                raise ValueError("it is no ledger of this version")

    def pack(self) -> bytes | None:
        """As msgpack; None if nothing of the limit is used, and nothing need be remembered."""
        if not self.spent and not self.held:
            return None
        return pack([_FORMAT, self.spent, {holder: list(holding) for holder, holding in self.held.items()}])

    def settle(self, now: float, alive: Callable[[str], bool | None], *, spends: bool) -> None:
        """Free what has come back by `now`, and what dead nodes held.

        `alive` says of a holder whether it lives; None: it was never heard of. `spends`: what a dead node held may have
        been spent up to this moment, and comes back a minute from now; otherwise its holder is gone, and so is the use.
        """
        present = tick_of(now)
        for tick in list(self.spent):
            if tick + _TICKS < present:
                del self.spent[tick]
            elif tick > present:
                self.spend(present, self.spent.pop(tick))
        oldest = present - round(UNHEARD / TICK)
        dead = [holder for holder, held in self.held.items() if _is_dead(alive(holder), held.written, oldest)]
        if len(self.held) - len(dead) > MAX_HOLDERS:
            lasting = sorted(self.held.keys() - set(dead), key=lambda holder: self.held[holder].written)
            dead += lasting[: len(lasting) - MAX_HOLDERS]
        for holder in dead:
            holding = self.held.pop(holder)
            if spends:
                self.spend(present, holding.tokens)

    def spend(self, tick: int, count: int) -> None:
        """Enter that `count` tokens were spent in `tick`. More than there are is a debt, and keeps others waiting."""
        if count > 0:
            self.spent[tick] = min(self.spent.get(tick, 0) + count, _MOST)

    def hold(self, holder: str, count: int, now: float, serial: int) -> None:
        """Enter that `holder` holds `count` in all."""
        if count > 0 or serial:
            self.held[holder] = Holding(count, tick_of(now), serial)
        else:
            self.held.pop(holder, None)

    def leave(self, holder: str) -> None:
        """Enter that `holder` holds nothing, and has said everything."""
        self.held.pop(holder, None)

    def held_by(self, holder: str) -> Holding:
        """What `holder` holds."""
        return self.held.get(holder, _NOTHING)

    @property
    def used(self) -> int:
        """Tokens that are spent or held."""
        return sum(self.spent.values()) + sum(holding.tokens for holding in self.held.values())

    def free(self, limit: int) -> int:
        """Tokens of `limit` that can be drawn; negative where there is a debt."""
        return limit - self.used

    def returns_in(self, now: float, limit: int) -> float | None:
        """Seconds until a token of `limit` is free, if nobody spends or returns any; None if that frees none."""
        missing = 1 - self.free(limit)
        if missing <= 0:
            return 0.0
        for tick in sorted(self.spent):
            missing -= self.spent[tick]
            if missing <= 0:
                return max(0.0, (tick + _TICKS + 1) * TICK - now)
        return None


_NOTHING: Final = Holding(0, 0, 0)


def _is_dead(lives: bool | None, written: int, oldest: int) -> bool:
    return not lives if lives is not None else written < oldest


def _counts(spent: Mapping[Any, Any]) -> dict[int, int]:
    for tick, count in spent.items():
        if type(tick) is not int or type(count) is not int or not 0 < count <= _MOST or not 0 <= tick < _MOST:
            raise ValueError(f"{count!r} tokens at {tick!r} cannot have been spent")
    return dict(spent)


def _holdings(held: Mapping[Any, Any]) -> dict[str, Holding]:
    holdings: dict[str, Holding] = {}
    for holder, holding in held.items():
        match holding:
            case [int(count), int(written), int(serial)] if (
                isinstance(holder, str) and 0 <= count <= _MOST and 0 <= written < _MOST and 0 <= serial < _MOST
            ):
                holdings[holder] = Holding(count, written, serial)
            case _:
                raise ValueError(f"{holder!r} cannot hold {holding!r}")
    return holdings
