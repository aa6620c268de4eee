"""`Limiter`: holds tenants and sessions to their limits, at one node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self

from ...actors.departure import Departure
from ...actors.session import TenantContext
from ...actors.session.messages import Call
from ...actors.session.snapshot import SessionSnapshot
from ...actors.session.wire import encode
from ...stores import Address
from .counters import CountersUnavailable
from .limits import NO_SESSION_LIMITS, Limits
from .local_rate import LocalRate
from .permits import NOT_METERED, Permits
from .pool import Exhausted, Pool
from .refusing import over_rate, over_size, unchecked
from .session_use import SessionUse
from .tenant_use import TenantUse
from .usage import Usage

__all__ = ["Limiter"]


class Limiter:
    """`CallLimits`: what calls spend, and what sessions keep.

    Used as an async context manager. Entering starts one task, which does nothing while nobody uses anything.
    """

    def __init__(self, usage: Usage) -> None:
        self.usage = usage
        self.permits = Permits(usage)
        """What the legs ask before they deliver a request or open a stream."""
        self._clock = usage.sharing.clock
        self._refuse = usage.refuse
        self._tidying: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._tidying = self.usage.sharing.tasks.spawn(self.usage.tidy_forever())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Tell the others what was used, and give back the rest. Best effort, bounded."""
        if self._tidying is not None:
            self._tidying.cancel()
        await self.usage.leave()

    def begin(self, call: Call, session: Address | None, *, read_only: bool) -> Awaitable[None] | None:
        """See `CallLimits.begin`."""
        limits = self.usage.limits(call.tenant)
        if limits is None or call.method in NOT_METERED:
            return None
        use = self.usage.of(call.tenant.tenant)
        now = self._clock.monotonic()
        of_session = None
        if session is not None and limits.per_session is not NO_SESSION_LIMITS:
            of_session = self.usage.of_session(session, call.tenant)
            self._check_session(limits, of_session, now)
        bytes_limit = limits.result_bytes_per_minute
        if bytes_limit is not None and use.results.may_begin(bytes_limit) is not True:
            return self._begin_slowly(call, limits, use, of_session, read_only)
        if limits.state_bytes is not None and session is not None and use.state.stale:
            return self._begin_slowly(call, limits, use, of_session, read_only)
        if call.method != "tools/call":
            return None
        return self._take_call(limits, use, of_session, read_only)

    def _take_call(
        self, limits: Limits, use: TenantUse, session: SessionUse | None, read_only: bool
    ) -> Awaitable[None] | None:
        if read_only:
            name, most, pool = "read_only_calls_per_minute", limits.read_only_calls_per_minute, use.reads
        else:
            name, most, pool = "calls_per_minute", limits.calls_per_minute, use.calls
        taken: LocalRate | None = None
        if session is not None and (own := getattr(limits.per_session, name)) is not None:
            taken = session.reads if read_only else session.calls
            wait = taken.take(own, self._clock.monotonic())
            if wait is not None:
                raise self._refuse(over_rate(name, own, wait, of_session=True))
        return None if most is None or pool.take(most) else self._draw_call(name, most, pool, taken)

    def _check_session(self, limits: Limits, session: SessionUse, now: float) -> None:
        most = limits.per_session.result_bytes_per_minute
        if most is not None and (wait := session.results.wait(most, now)) is not None:
            raise self._refuse(over_rate("result_bytes_per_minute", most, wait, of_session=True))

    async def _begin_slowly(
        self, call: Call, limits: Limits, use: TenantUse, session: SessionUse | None, read_only: bool
    ) -> None:
        most = limits.result_bytes_per_minute
        if most is not None:
            try:
                await use.results.look(most)
            except Exhausted as spent:
                raise self._refuse(over_rate("result_bytes_per_minute", most, spent.retry_after)) from None
            except CountersUnavailable:
                raise self._refuse(unchecked("result_bytes_per_minute")) from None
        if limits.state_bytes is not None and use.state.stale:
            try:
                await use.state.learn()
            except CountersUnavailable:
                raise self._refuse(unchecked("state_bytes")) from None
        if call.method == "tools/call":
            drawing = self._take_call(limits, use, session, read_only)
            if drawing is not None:
                await drawing

    async def _draw_call(self, name: str, most: int, pool: Pool, of_session: LocalRate | None) -> None:
        try:
            await pool.draw(most)
        except BaseException as error:
            if of_session is not None:
                of_session.untake()
            if isinstance(error, Exhausted):
                raise self._refuse(over_rate(name, most, error.retry_after)) from None
            if isinstance(error, CountersUnavailable):
                raise self._refuse(unchecked(name)) from None
            raise

    def check_result(self, call: Call, session: Address | None, result: dict[str, Any]) -> None:
        """See `CallLimits.check_result`."""
        limits = self.usage.limits(call.tenant)
        if limits is None or call.method in NOT_METERED:
            return
        own = limits.per_session if session is not None else None
        sizes = [most for most in (limits.result_bytes, own.result_bytes if own else None) if most is not None]
        rate, own_rate = limits.result_bytes_per_minute, own.result_bytes_per_minute if own else None
        if not sizes and rate is None and own_rate is None:
            return
        try:
            size = len(encode(result))
        except ValueError:
            # It is not going to be sent.
            return
        if sizes and size > min(sizes):
            raise self._refuse(over_size(min(sizes), size))
        if rate is not None:
            self.usage.of(call.tenant.tenant).results.spend(size)
        if own_rate is not None and session is not None:
            self.usage.of_session(session, call.tenant).results.spend(size, self._clock.monotonic())

    def max_state(self, tenant: TenantContext, present: int, most: int) -> int:
        """See `CallLimits.max_state`."""
        limits = self.usage.limits(tenant)
        if limits is None:
            return most
        own = limits.per_session.state_bytes
        bound = most if own is None else min(most, own)
        if limits.state_bytes is not None:
            stock = self.usage.of(tenant.tenant).state
            left = limits.state_bytes - (stock.present or 0)
            if left * 10 < limits.state_bytes:
                stock.count_soon()
            bound = min(bound, present + max(0, left))
        # What is there may stay, and shrink.
        return max(bound, min(present, most))

    def state_changed(self, tenant: str, grown: int) -> None:
        """See `CallLimits.state_changed`."""
        use = self.usage.known(tenant)
        # Of a tenant that has never been asked about nobody knows how much there is; who asks counts it.
        if use is not None and use.state.count is not None:
            use.state.add(grown)

    def opening(self, tenant: TenantContext) -> Awaitable[None] | None:
        """See `CallLimits.opening`."""
        limits = self.usage.limits(tenant)
        if limits is None or limits.sessions is None:
            return None
        return self.usage.add_session(tenant.tenant, limits.sessions)

    def not_opened(self, tenant: TenantContext) -> None:
        """See `CallLimits.not_opened`."""
        self.usage.drop_session(tenant.tenant)

    def session_over(self, address: Address, session: SessionSnapshot, departure: Departure) -> None:
        """A `SessionEnded`. One that is found gone may have been so at the last census: the next one tells."""
        if departure is Departure.ENDED:
            self.usage.drop_session(session.tenant, len(session.state))

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return self.usage.stats()
