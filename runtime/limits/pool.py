"""`Pool`: a node's share of one limit. It draws ahead of need from the ledger, so that calls take without waiting."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from functools import partial
from typing import ClassVar, Final, NamedTuple

from .counters import CountersUnavailable
from .reports import Reports, enter
from .sharing import LASTING, SHARE, Exhausted, Sharing, read_ledger

__all__ = ["Pool"]

logger = logging.getLogger("understudy.limits")

AHEAD: Final = 0.5
"""Seconds that what is drawn ahead should last, going by what has been taken lately."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which a limit that others hold is looked at again: they may have given some back."""


class Pool(ABC):
    """Tokens in hand, taken one by one: of a rate (`RatePool`) or permits (`PermitPool`).

    What is drawn is held in the ledger until it is told spent, or goes back: so the limit is never exceeded. What is in
    hand and unused others lack: at most a `SHARE`-th of the limit at each node, for the seconds until it is tidied (see
    `TenantUse.due`). Of permits, what was just put back comes on top, until that is told.
    """

    __slots__ = (
        "_changing",
        "_entered_in",
        "_former",
        "_high",
        "_limit",
        "_low",
        "_most",
        "_name",
        "_nothing_until",
        "_plain_below",
        "_relimit_at",
        "_reports",
        "_returns_at",
        "_sharing",
        "_takes_before",
        "_takes_since",
        "_used",
        "_waiting",
        "drawn",
        "key",
    )

    spends: ClassVar[bool]
    """Whether it is a rate's, which what is taken does not come back to."""

    def __init__(self, key: str, sharing: Sharing) -> None:
        self.key = key
        self.drawn = 0
        """Times that tokens were drawn."""
        self._used = 0
        """Of a rate, tokens that were ever taken; permits that were taken and not put back."""
        self._most = 0
        """What `_used` may come to with what is in hand."""
        self._plain_below = 0
        """While fewer than so many are used, one can be taken with nothing else to be looked at."""
        self._sharing = sharing
        self._limit = 1
        self._low = -1
        """With no more than so many in hand more are drawn."""
        self._high = 0
        """Within so many permits in hand, which is no more than a share, none need go back at once."""
        self._name: str = sharing.me()
        self._former: str | None = None
        self._reports = Reports(sharing.wall, sharing.next_serial)
        self._entered_in = sharing.counters.generation
        self._changing: asyncio.Task[bool] | None = None
        self._waiting = 0
        self._nothing_until = 0.0
        self._returns_at = 0.0
        self._relimit_at = 0.0
        self._takes_before = 0
        self._takes_since = sharing.clock.monotonic()

    @property
    def tokens(self) -> int:
        """In hand."""
        return self._most - self._used

    @property
    @abstractmethod
    def in_use(self) -> int:
        """Permits that were taken and not put back."""

    @property
    @abstractmethod
    def takes(self) -> int:
        """Tokens that were ever taken."""

    def _keep(self, tokens: int) -> None:
        """Have so many in hand."""
        self._most = self._used + tokens
        self._plain_below = self._most - self._low - 1

    # Taking

    @abstractmethod
    def _take_one(self) -> None:
        """Take a token that is in hand."""

    def _take_slowly(self, limit: int) -> bool:
        """Take a token if one is in hand, whatever else there is to be done."""
        if limit != self._limit:
            self._relimit(limit)
        if self._most <= self._used:
            return False
        self._take_one()
        if self._most - self._used <= self._low and self._changing is None and not self._nothing_until:
            self._change_soon()
        return True

    def _relimit(self, limit: int) -> None:
        """The limit is another one now. What was drawn under a higher one has to be drawn anew, though not more often
        than now and then: where principals of one tenant have different plans, the limit changes with each call.
        """
        lower = limit < self._limit
        self._limit = limit
        self._nothing_until = 0.0
        now = self._sharing.clock.monotonic()
        if lower and now >= self._relimit_at:
            self._relimit_at = now + LOOK_AGAIN
            self._keep(0)
        else:
            self._keep(self.tokens)

    async def draw(self, limit: int) -> None:
        """Take a token, when one was drawn. Cancellation takes none.

        Raises:
            Exhausted: There is none.
            CountersUnavailable: Nobody can say, and this node must not count alone.
        """
        self._waiting += 1
        try:
            while not self._take_slowly(limit):
                if self._nothing_until:
                    now = self._sharing.clock.monotonic()
                    if now < self._nothing_until:
                        raise Exhausted(max(self._returns_at - now, 0.0))
                    self._nothing_until = 0.0
                changing = self._changing or self._change_soon()
                # The change is not this caller's alone, and goes on without it.
                if not await asyncio.shield(changing):
                    raise CountersUnavailable("the counters of the limits are out of reach")
        finally:
            self._waiting -= 1

    # Sharing

    @property
    def _ahead(self) -> int:
        """Tokens to have in hand: what is taken in a while, within the share."""
        if not self._sharing.counters.shared:
            return self._limit
        most = self._limit // SHARE
        if most <= 1:
            return most
        now = self._sharing.clock.monotonic()
        elapsed = now - self._takes_since
        lately = self.takes - self._takes_before
        wanted = int(lately * AHEAD / max(elapsed, AHEAD)) + 1
        if elapsed > 2 * AHEAD:
            self._takes_before, self._takes_since = self.takes - lately // 2, now - AHEAD
        return min(most, wanted)

    @property
    def _has_too_many(self) -> bool:
        """Whether permits are in hand that others should have. Tokens of a rate go back when they are not used."""
        return not self.spends and self.tokens > self._ahead + self._waiting

    def _date(self) -> None:
        """Have the reports say all that was spent."""
        return

    @property
    def _untold(self) -> bool:
        """Whether something was spent that the ledger may not know of."""
        return bool(self._reports)

    def _change_soon(self, *, leaving: bool = False) -> asyncio.Task[bool]:
        self._changing = self._sharing.tasks.spawn(self._change(leaving))
        return self._changing

    async def _change(self, leaving: bool) -> bool:
        """Tell what was spent, draw what is wanted, give back what is too much; False if nobody could be told."""
        try:
            told = await self._exchange(leaving)
            while told and self._has_too_many:
                told = await self._exchange(leaving=False)
        except Exception:
            # Its task is one of a group, which an error would end.
            logger.exception("a change of what is counted at %s failed", self.key)
            return False
        finally:
            self._changing = None
        return told

    async def _exchange(self, leaving: bool) -> bool:
        sharing = self._sharing
        me = sharing.me()
        if me != self._name:
            # What the old name held counts as a dead node's: what of it was spent and not told is spent now.
            self._former = self._name
            self._name = me
            self._date()
            self._reports.drop()
        ahead = 0 if leaving else self._ahead
        self._low = ahead // 2 if ahead else -1
        self._high = ahead
        wanted = ahead + self._waiting
        self._keep(min(self.tokens, wanted))
        asked = wanted - self.tokens
        keeping = self.tokens + self.in_use
        self._date()
        reports = self._reports.write()
        serial, limit, spends = self._reports.serial, self._limit, self.spends
        former = self._former
        generation = sharing.counters.generation

        def step(packed: bytes | None, alone: bool) -> tuple[bytes | None, _Drawn]:
            ledger = read_ledger(self.key, packed)
            now = sharing.wall()
            known = ledger.held_by(me).serial
            ledger.leave(me)
            ledger.settle(now, partial(self._lives, alone, former), spends=spends)
            enter(reports, ledger, after=known)
            granted = max(0, min(asked, ledger.free(limit) - keeping))
            others = any(holding.tokens for holding in ledger.held.values())
            holding = keeping + granted
            # Alone, what was told stays to be told to the others, and must not be entered here twice.
            if holding or alone or not leaving:
                ledger.hold(me, holding, now, serial)
            return ledger.pack(), _Drawn(granted, others, ledger.returns_in(now, limit))

        try:
            drawn, alone = await sharing.counters.change(self.key, step, LASTING if spends else None)
        except CountersUnavailable:
            return False
        if not alone:
            self._entered_in = generation
            self._reports.arrived(serial)
            self._former = None if self._former == former else self._former
        self.drawn += drawn.tokens > 0
        if drawn.tokens < asked:
            # Nearly all of the limit is in use. To ask again with each token that is taken would cost each call a
            # change, and bring nothing.
            self._low = min(self._low, (self.tokens + drawn.tokens) // 2 or -1)
        self._keep(self.tokens + drawn.tokens)
        if asked and not drawn.tokens and not self.tokens:
            now = sharing.clock.monotonic()
            returns = LOOK_AGAIN if drawn.returns is None else drawn.returns
            self._returns_at = now + returns
            self._nothing_until = now + (min(returns, LOOK_AGAIN) if drawn.others_hold else returns)
            self._keep(0)
        return True

    def _lives(self, alone: bool, former: str | None, holder: str) -> bool | None:
        return False if alone or holder == former else self._sharing.alive(holder)

    @property
    def resting(self) -> bool:
        """Nothing is in hand, in use or untold: whoever needs the pool may make it anew."""
        return not (self.tokens or self.in_use or self._untold or self._waiting or self._changing is not None)

    @property
    def forgotten(self) -> bool:
        """Whether the ledger may know nothing any more of the permits that are in use here, such as after a restart of
        NATS. Others would have as many again.
        """
        return self.in_use > 0 and self._entered_in != self._sharing.counters.generation

    async def tidy(self) -> None:
        """Give back what is not used, and tell what was spent. Called now and then, and at the end."""
        if self._changing is None and (self.tokens or self._untold):
            await asyncio.shield(self._change_soon(leaving=True))
        elif self.forgotten:
            await self.enter_again()

    async def enter_again(self) -> None:
        """Tell what is in use."""
        await asyncio.shield(self._changing or self._change_soon())


class _Drawn(NamedTuple):
    tokens: int
    others_hold: bool
    returns: float | None
