"""`PostPaid`: a rate whose size is known only afterwards, such as bytes of results. Its debt is paid by waiting."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from .counters import CountersUnavailable
from .reports import Reports, enter
from .sharing import LASTING, SHARE, Exhausted, Sharing, read_ledger

__all__ = ["PostPaid"]

logger = logging.getLogger("understudy.limits")

FRESH: Final = 1.0
"""Seconds that what was read of the ledger is gone by while the limit is in use."""
STALE: Final = 5.0
"""Seconds after which it says nothing any more."""


class PostPaid:
    """What this node knows of a rate that all nodes share, and what of its own it has yet to tell.

    Whoever begins while less than the limit was spent in the last minute may go on to any size. So a minute may see
    more than it: by what was under way when it was reached, and by a `SHARE`-th of it for each node.
    """

    __slots__ = (
        "_changing",
        "_dated",
        "_limit",
        "_reports",
        "_returns_at",
        "_sharing",
        "_tell_above",
        "_told",
        "fresh_until",
        "key",
        "spent",
    )

    def __init__(self, key: str, sharing: Sharing) -> None:
        self.key = key
        self._sharing = sharing
        self._limit = 1
        self.spent = 0
        """In the last minute, as far as is known here."""
        self._told = 0
        """What of it the ledger has."""
        self._tell_above = 0
        """Above so much spent it is told at once."""
        self.fresh_until = float("-inf")
        """Monotonic seconds until which that is known well enough; then it is to be asked for in `may_begin`."""
        self._returns_at = 0.0
        self._dated = 0
        """How much of what the ledger does not have yet is in reports."""
        self._reports = Reports(sharing.wall, sharing.next_serial)
        self._changing: asyncio.Task[bool] | None = None

    def may_begin(self, limit: int) -> bool | None:
        """Whether less than `limit` was spent in the last minute; None if that has to be looked up first."""
        if limit != self._limit:
            self._limit = limit
            self._tell_above = self._told + limit // SHARE
        now = self._sharing.clock.monotonic()
        if self.spent >= limit:
            return False if now < self._returns_at else None
        if now > self.fresh_until and self._changing is None:
            if now > self.fresh_until + STALE - FRESH:
                return None
            self._change_soon()
        return True

    async def look(self, limit: int) -> None:
        """Look up whether anything may begin.

        Raises:
            Exhausted: Nothing may.
            CountersUnavailable: Nobody can say, and this node must not count alone.
        """
        may = self.may_begin(limit)
        if may is None:
            if not await asyncio.shield(self._changing or self._change_soon()):
                raise CountersUnavailable("the counters of the limits are out of reach")
            may = self.spent < limit
        if not may:
            raise Exhausted(max(self._returns_at - self._sharing.clock.monotonic(), 0.0))

    def spend(self, count: int) -> None:
        """So much was spent just now. It is dated when it is told, a second or two later at most."""
        spent = self.spent = self.spent + count
        if spent > self._tell_above and self._changing is None:
            self._change_soon()

    def _change_soon(self) -> asyncio.Task[bool]:
        self._changing = self._sharing.tasks.spawn(self._change())
        return self._changing

    async def _change(self) -> bool:
        try:
            return await self._exchange()
        except Exception:
            logger.exception("a change of what is counted at %s failed", self.key)
            return False
        finally:
            self._changing = None

    async def _exchange(self) -> bool:
        sharing = self._sharing
        me = sharing.me()
        telling = self.spent - self._told
        if telling > self._dated:
            self._reports.spend(telling - self._dated)
            self._dated = telling
        reports = self._reports.write()
        serial, limit = self._reports.serial, self._limit

        def step(packed: bytes | None, alone: bool) -> tuple[bytes | None, tuple[int, float | None]]:
            ledger = read_ledger(self.key, packed)
            now = sharing.wall()
            known = ledger.held_by(me).serial
            ledger.settle(now, sharing.alive, spends=True)
            enter(reports, ledger, after=known)
            if serial:
                ledger.hold(me, 0, now, serial)
            return ledger.pack(), (ledger.used, ledger.returns_in(now, limit))

        try:
            (used, returns), alone = await sharing.counters.change(self.key, step, LASTING)
        except CountersUnavailable:
            return False
        if not alone:
            self._reports.arrived(serial)
        self._dated -= telling
        self.spent += used - self._told - telling
        self._told = used
        self._tell_above = used + self._limit // SHARE
        now = sharing.clock.monotonic()
        self.fresh_until = now + FRESH
        self._returns_at = now + (FRESH if returns is None else returns)
        return True

    @property
    def resting(self) -> bool:
        """Everything is told: whoever needs the account may make it anew."""
        return not (self.spent > self._told or self._reports or self._changing is not None)

    async def tidy(self) -> None:
        """Tell what was spent."""
        if self._changing is None and (self.spent > self._told or self._reports):
            await asyncio.shield(self._change_soon())
