"""`Usage`: what a node knows of those who use anything, and what they are allowed."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from dataclasses import fields
from itertools import islice
from typing import Final

from ...actors.foreign_errors import ends_the_task
from ...actors.session import TenantContext
from ...actors.session.errors import LimitExceeded
from ...stores import Address
from .allowance import Allowance
from .census import StoreCensus
from .counters import CountersUnavailable
from .limits import NO_SESSION_LIMITS, Limits, LimitsOf
from .limits_file import LimitsFile
from .refusing import over_use, unchecked
from .session_use import SessionUse, SessionUses
from .sharing import Exhausted, Sharing
from .tenant_use import TenantUse, Tidy

__all__ = ["Usage"]

logger = logging.getLogger("understudy.limits")

LOOK_EVERY: Final = 1.0
"""Seconds between two looks for what is not used, and goes back."""
TIDY_AT_ONCE: Final = 64
MAX_TENANTS: Final = 10_000
"""Tenants that are known at once; above it whoever is new is told that limits cannot be checked."""
LOOK_AT: Final = 64
"""Tenants that are looked at in one go: for what they do not use, or, those known for longest, for one that may be
forgotten for another."""
LEAVE_TIMEOUT: Final = 1.0
_NAMES: Final = tuple(each.name for each in fields(Limits) if each.name not in ("per_session", "state_bytes"))


class Usage:
    """bounded: what tenants use, what sessions use, and how often each limit has refused."""

    def __init__(self, limits_of: LimitsOf, sharing: Sharing, census: StoreCensus) -> None:
        self.sharing = sharing
        self._limits_of = limits_of
        self._file = limits_of if isinstance(limits_of, LimitsFile) else None
        self._census = census
        self._tenants: dict[str, TenantUse] = {}
        self._sessions = SessionUses()
        self._session_uses = self._sessions.uses
        self._busy = asyncio.Event()
        self._drawn = 0
        self._refused: Counter[str] = Counter()
        """By the name of the limit."""
        self._unchecked = 0

    def limits(self, tenant: TenantContext) -> Limits | None:
        """What `tenant` may use; None: everything.

        Raises:
            LimitExceeded: Nobody can say.
        """
        try:
            limits = self._limits_of(tenant)
        except BaseException as error:
            raise self._unknown(error) from None
        return self._checked(limits)

    def _unknown(self, error: BaseException) -> BaseException:
        """What to raise where `error` is why nobody can say what a tenant may use."""
        if ends_the_task(error):
            return error
        logger.error("the function that says what tenants may use failed", exc_info=error)
        return self.refuse(unchecked("limits"))

    def _checked(self, limits: Limits | None) -> Limits | None:
        if limits is not None and not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
            logger.error("the function that says what tenants may use returned %s", type(limits).__name__)
            raise self.refuse(unchecked("limits"))
        return limits

    def allowance(self, tenant: TenantContext, session: Address | None) -> Allowance | None:
        """What a call of `tenant` may use; None: everything. `session`: the one that it names.

        Raises:
            LimitExceeded: As `limits` and `of`.
        """
        try:
            limits = self._limits_of(tenant)
        except BaseException as error:
            raise self._unknown(error) from None
        if type(limits) is not Limits:
            limits = self._checked(limits)
            if limits is None:
                return None
        if session is None or limits.per_session is NO_SESSION_LIMITS:
            use = self._tenants.get(tenant.tenant)
        else:
            # As `SessionUses.of`, which each call would pay for.
            use = self._session_uses.get((session, tenant.tenant, tenant.principal))
        if use is not None:
            allowance = use.allowance
            if allowance is not None and allowance.limits is limits and not allowance.tenant.forgotten:
                return allowance
        return self._allowance(limits, tenant, session)

    def _allowance(self, limits: Limits, tenant: TenantContext, session: Address | None) -> Allowance:
        use = self.of(tenant.tenant)
        if session is None or limits.per_session is NO_SESSION_LIMITS:
            allowance = use.allowance = Allowance(self, limits, use, None)
        else:
            of_session = self._sessions.of(session, tenant)
            allowance = of_session.allowance = Allowance(self, limits, use, of_session)
        return allowance

    def of(self, tenant: str) -> TenantUse:
        """What a tenant uses.

        Raises:
            LimitExceeded: It is not known, and there is no room for more.
        """
        use = self._tenants.get(tenant)
        if use is None:
            if len(self._tenants) >= MAX_TENANTS and not self._make_room():
                raise self.refuse(unchecked("tenants"))
            use = self._tenants[tenant] = TenantUse(
                tenant, self.sharing, sessions=self._census.sessions, state=self._census.state
            )
            self._busy.set()
        use.look_at = 0.0
        return use

    def known(self, tenant: str) -> TenantUse | None:
        """What a tenant uses, if anybody has asked before."""
        use = self._tenants.get(tenant)
        if use is not None:
            use.look_at = 0.0
        return use

    def of_session(self, session: Address, tenant: TenantContext) -> SessionUse:
        """What a session uses, as `tenant` uses it."""
        return self._sessions.of(session, tenant)

    def refuse(self, refusal: LimitExceeded) -> LimitExceeded:
        """Count `refusal`, which is to be raised."""
        if refusal.unchecked:
            self._unchecked += 1
        else:
            self._refused[refusal.limit] += 1
        return refusal

    # Sessions, which last: whoever has opened one tells when it is over

    async def add_session(self, tenant: str, most: int) -> None:
        """One is about to be opened.

        Raises:
            LimitExceeded: There are `most`.
        """
        try:
            await self.of(tenant).sessions.add_one(most)
        except Exhausted as full:
            raise self.refuse(over_use("sessions", most, full.retry_after)) from None
        except CountersUnavailable:
            raise self.refuse(unchecked("sessions")) from None

    def drop_session(self, tenant: str, state: int = 0) -> None:
        """One that was counted, with so many bytes of state, is not there any more. Never raises."""
        with suppress(LimitExceeded):
            use = self.of(tenant)
            use.sessions.add(-1)
            use.state.add(-state)

    # What is not used goes back

    async def tidy_forever(self) -> None:
        """Give back what is not used, and forget who uses nothing. Does nothing while nobody uses anything."""
        while True:
            await self._busy.wait()
            await self.sharing.clock.sleep(LOOK_EVERY)
            try:
                await self._look()
            except Exception:
                logger.exception("what tenants use could not be tidied")

    async def _look(self) -> None:
        if self._file is not None:
            await self._file.look()
        now = self.sharing.clock.monotonic()
        wanted = [item for item in self._tenants.items() if item[1].look_at <= now]
        for start in range(0, len(wanted), LOOK_AT):
            due: list[Tidy] = []
            for tenant, use in wanted[start : start + LOOK_AT]:
                due += use.due(now)
                if use.forgettable and self._tenants.get(tenant) is use:
                    self._drop(tenant, use)
            await self._tidy(due)
            # Others must not wait for all of ten thousand.
            await asyncio.sleep(0)
        self._sessions.forget_resting(self.sharing.clock.monotonic())
        if not self._tenants:
            self._busy.clear()

    async def leave(self) -> None:
        """Tell the others what was used, and give back the rest. Best effort, bounded."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await self._tidy([work for use in self._tenants.values() for work in use.leaving()])
        self.sharing.counters.stop()

    async def _tidy(self, due: list[Tidy]) -> None:
        for start in range(0, len(due), TIDY_AT_ONCE):
            await asyncio.gather(*(tidy() for tidy in due[start : start + TIDY_AT_ONCE]))

    def _make_room(self) -> bool:
        for tenant, use in list(islice(self._tenants.items(), LOOK_AT)):
            if use.resting:
                self._drop(tenant, use)
                return True
            # Those who are always at work must not be all that is ever looked at.
            self._tenants[tenant] = self._tenants.pop(tenant)
        return False

    def _drop(self, tenant: str, use: TenantUse) -> None:
        self._drawn += use.drawn
        del self._tenants[tenant]
        use.forgotten = True
        # It refers back: nothing is left to the garbage collector.
        use.allowance = None

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            **{f"limits_refused_{name}_total": self._refused[name] for name in _NAMES},
            "limits_refused_unchecked_total": self._unchecked,
            "limits_shares_drawn_total": self._drawn + sum(use.drawn for use in self._tenants.values()),
            "limits_tenants": len(self._tenants),
            "limits_sessions": len(self._sessions),
            **self._file_stats(),
            **self.sharing.counters.stats(),
        }

    def _file_stats(self) -> dict[str, int]:
        file = self._file
        if file is None:
            return {}
        return {"limits_file_reloads_total": file.reloads, "limits_file_failures_total": file.failures}
