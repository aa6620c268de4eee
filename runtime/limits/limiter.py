"""`Limiter`: holds tenants and sessions to their limits, at one node."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

from ...actors.session import TenantContext
from ...actors.session.errors import LimitExceeded
from ...actors.session.messages import Call
from ...actors.session.wire import encode
from ...stores import Address
from .census import StoreCensus
from .counters import CountersUnavailable
from .limits import NO_SESSION_LIMITS, Limits, LimitsOf
from .pool import Exhausted, Pool, Sharing
from .refusing import over_rate, over_size, over_use, unchecked
from .session_use import OpenStream, SessionUse, SessionUses
from .tenant_use import TenantUse, Tidy

__all__ = ["Limiter"]

logger = logging.getLogger("understudy.limits")

LISTEN: Final = "subscriptions/listen"
_FREE: Final = frozenset({"initialize", "ping", LISTEN})
"""What is not counted as a call in flight, and goes on whatever results have cost."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks for what is not used, and goes back."""
TIDY_AT_ONCE: Final = 64
MAX_TENANTS: Final = 10_000
"""Tenants that are known at once; above it whoever is new is told that limits cannot be checked."""
LOOK_AT: Final = 64
"""Tenants, those known for longest, among which one is sought that may be forgotten for another."""
RESUME_PATIENCE: Final = 3.0
"""Seconds that a client waits who resumes a stream: the connection that it lost may still count at another node."""
LEAVE_TIMEOUT: Final = 1.0
_NAMES: Final = tuple(each.name for each in fields(Limits) if each.name not in ("per_session", "state_bytes"))


class Limiter:
    """`CallLimits`, and what the legs ask before they deliver a request or open a stream.

    Used as an async context manager. Entering starts one task, which does nothing while nobody uses anything.
    """

    def __init__(self, limits_of: LimitsOf, sharing: Sharing, census: StoreCensus) -> None:
        self._limits_of = limits_of
        self._sharing = sharing
        self._census = census
        self._clock = sharing.clock
        self._tenants: dict[str, TenantUse] = {}
        self._sessions = SessionUses()
        self._busy = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._drawn = 0
        self.refused: Counter[str] = Counter()
        """By the name of the limit."""
        self.unchecked = 0

    async def __aenter__(self) -> Self:
        self._looking = self._sharing.tasks.spawn(self._look_forever())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Tell the others what was used, and give back the rest. Best effort, bounded."""
        if self._looking is not None:
            self._looking.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await self._tidy([work for use in self._tenants.values() for work in use.leaving()])
        self._sharing.counters.stop()

    # `CallLimits`

    def begin(self, call: Call, session: Address | None, *, read_only: bool) -> Awaitable[None] | None:
        """See `CallLimits.begin`."""
        limits = self._limits(call.tenant)
        if limits is None or call.method in _FREE:
            return None
        use = self._of(call.tenant.tenant)
        now = self._clock.monotonic()
        of_session = None
        if session is not None and limits.per_session is not NO_SESSION_LIMITS:
            of_session = self._sessions.of(session, call.tenant)
            self._check_session(limits, of_session, now)
        bytes_limit = limits.result_bytes_per_minute
        if bytes_limit is not None and use.results.may_begin(bytes_limit) is not True:
            return self._begin_slowly(call, limits, use, of_session, read_only)
        if limits.state_bytes is not None and session is not None and use.state.stale:
            return self._begin_slowly(call, limits, use, of_session, read_only)
        if call.method != "tools/call":
            return None
        if read_only:
            name, most, own = "read_only_calls_per_minute", limits.read_only_calls_per_minute, None
            if of_session is not None and (own := limits.per_session.read_only_calls_per_minute) is not None:
                self._take_of_session(name, own, of_session, now)
            pool = use.reads
        else:
            name, most, own = "calls_per_minute", limits.calls_per_minute, None
            if of_session is not None and (own := limits.per_session.calls_per_minute) is not None:
                self._take_of_session(name, own, of_session, now)
            pool = use.calls
        if most is None or pool.take(most):
            return None
        return self._draw_call(name, most, pool, of_session if own is not None else None)

    def _check_session(self, limits: Limits, session: SessionUse, now: float) -> None:
        most = limits.per_session.result_bytes_per_minute
        if most is not None and (wait := session.results.wait(most, now)) is not None:
            raise self._refuse(over_rate("result_bytes_per_minute", most, wait, of_session=True))

    def _take_of_session(self, name: str, most: int, session: SessionUse, now: float) -> None:
        rate = session.calls if name == "calls_per_minute" else session.reads
        wait = rate.take(most, now)
        if wait is not None:
            raise self._refuse(over_rate(name, most, wait, of_session=True))

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
        if call.method != "tools/call":
            return
        name = "read_only_calls_per_minute" if read_only else "calls_per_minute"
        own = None if session is None else getattr(limits.per_session, name)
        if own is not None and session is not None:
            self._take_of_session(name, own, session, self._clock.monotonic())
        most = getattr(limits, name)
        if most is not None:
            pool = use.reads if read_only else use.calls
            await self._draw_call(name, most, pool, session if own is not None else None)

    async def _draw_call(self, name: str, most: int, pool: Pool, session: SessionUse | None) -> None:
        try:
            await pool.draw(most)
        except BaseException as error:
            if session is not None:
                (session.calls if name == "calls_per_minute" else session.reads).untake()
            if isinstance(error, Exhausted):
                raise self._refuse(over_rate(name, most, error.retry_after)) from None
            if isinstance(error, CountersUnavailable):
                raise self._refuse(unchecked(name)) from None
            raise

    def check_result(self, call: Call, session: Address | None, result: dict[str, Any]) -> None:
        """See `CallLimits.check_result`."""
        limits = self._limits(call.tenant)
        if limits is None or call.method in _FREE:
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
            self._of(call.tenant.tenant).results.spend(size)
        if own_rate is not None and session is not None:
            self._sessions.of(session, call.tenant).results.spend(size, self._clock.monotonic())

    def max_state(self, tenant: TenantContext, present: int, most: int) -> int:
        """See `CallLimits.max_state`."""
        limits = self._limits(tenant)
        if limits is None:
            return most
        own = limits.per_session.state_bytes
        bound = most if own is None else min(most, own)
        if limits.state_bytes is not None:
            stock = self._of(tenant.tenant).state
            left = limits.state_bytes - (stock.present or 0)
            if left * 10 < limits.state_bytes:
                stock.count_soon()
            bound = min(bound, present + max(0, left))
        # What is there may stay, and shrink.
        return max(bound, min(present, most))

    def state_changed(self, tenant: str, grown: int) -> None:
        """See `CallLimits.state_changed`."""
        use = self._tenants.get(tenant)
        # Of a tenant that has never been asked about nobody knows how much there is; who asks counts it.
        if use is not None and use.state.count is not None:
            use.state.add(grown)

    def opening(self, tenant: TenantContext) -> Awaitable[None] | None:
        """See `CallLimits.opening`."""
        limits = self._limits(tenant)
        if limits is None or limits.sessions is None:
            return None
        return self._add_session(self._of(tenant.tenant), limits.sessions)

    async def _add_session(self, use: TenantUse, most: int) -> None:
        try:
            await use.sessions.add_one(most)
        except Exhausted as full:
            raise self._refuse(over_use("sessions", most, full.retry_after)) from None
        except CountersUnavailable:
            raise self._refuse(unchecked("sessions")) from None

    def not_opened(self, tenant: TenantContext) -> None:
        """See `CallLimits.not_opened`."""
        with suppress(LimitExceeded):
            self._of(tenant.tenant).sessions.add(-1)

    def ended(self, tenant: str, state: int) -> None:
        """A session of `tenant`, with so many bytes of state, exists no more."""
        with suppress(LimitExceeded):
            use = self._of(tenant)
            use.sessions.add(-1)
            use.state.add(-state)

    # Requests in flight

    def enter(self, call: Call, session: Address | None) -> Awaitable[None] | None:
        """`call` has come, for `session` if it has one: it is in flight until it has its outcome, or opens a session.

        Something to await where it cannot be told at once whether it may.

        Raises:
            LimitExceeded: It may not; nothing is counted.
        """
        limits = self._limits(call.tenant)
        if limits is None:
            return None
        if call.method in _FREE:
            return self._enter_special(call, limits)
        most = limits.calls_in_flight
        own = None if session is None else limits.per_session.calls_in_flight
        if most is None and own is None:
            return None
        of_session = None
        if own is not None and session is not None:
            of_session = self._sessions.of(session, call.tenant)
            if of_session.in_flight >= own:
                raise self._refuse(over_use("calls_in_flight", own, 1.0, of_session=True))
        pool = None if most is None else self._of(call.tenant.tenant).in_flight
        if pool is not None and most is not None and not pool.take(most):
            return self._enter_slowly(call, most, pool, own, of_session)
        self._entered(call, pool, of_session)
        return None

    def _entered(self, call: Call, pool: Pool | None, session: SessionUse | None) -> None:
        if session is not None:
            session.in_flight += 1

        def release(call: Call) -> None:
            if session is not None:
                session.in_flight -= 1
            if pool is not None:
                pool.put_back()

        call.release = release

    async def _enter_slowly(
        self, call: Call, most: int, pool: Pool, own: int | None, session: SessionUse | None
    ) -> None:
        try:
            await pool.draw(most)
        except Exhausted as full:
            raise self._refuse(over_use("calls_in_flight", most, full.retry_after)) from None
        except CountersUnavailable:
            raise self._refuse(unchecked("calls_in_flight")) from None
        if own is not None and session is not None and session.in_flight >= own:
            pool.put_back()
            raise self._refuse(over_use("calls_in_flight", own, 1.0, of_session=True))
        self._entered(call, pool, session)

    def _enter_special(self, call: Call, limits: Limits) -> Awaitable[None] | None:
        if call.method == "initialize" and limits.sessions is not None:
            return self._open_session(call, limits.sessions)
        if call.method == LISTEN and limits.streams is not None:
            return self._listen(call, limits.streams)
        return None

    async def _open_session(self, call: Call, most: int) -> None:
        use = self._of(call.tenant.tenant)
        await self._add_session(use, most)

        def release(call: Call) -> None:
            if call.exchange.refusal is not None or call.exchange.elsewhere is not None:
                self.not_opened(call.tenant)

        call.release = release

    async def _listen(self, call: Call, most: int) -> None:
        pool = self._of(call.tenant.tenant).streams
        await self._draw_stream(pool, most, patience=0.0)
        call.release = lambda call: pool.put_back()

    # Streams

    @asynccontextmanager
    async def stream(
        self, tenant: TenantContext, session: Address, name: str, *, resumed: bool
    ) -> AsyncGenerator[None]:
        """While a client reads the stream `name` of `session`. Two connections to one stream are one: the newer takes
        it over.

        Raises:
            LimitExceeded: The tenant, or the session, has as many as it may have.
        """
        limits = self._limits(tenant)
        own = None if limits is None else limits.per_session.streams
        if limits is None or (limits.streams is None and own is None):
            yield
            return
        pool = self._of(tenant.tenant).streams
        use = self._sessions.of(session, tenant)
        opened = use.streams.get(name)
        if opened is None:
            if own is not None and len(use.streams) >= own:
                raise self._refuse(over_use("streams", own, 1.0, of_session=True))
            opened = use.streams[name] = OpenStream()
        opened.connections += 1
        try:
            if limits.streams is not None:
                await self._permit(opened, pool, limits.streams, RESUME_PATIENCE if resumed else 0.0)
            yield
        finally:
            opened.connections -= 1
            if not opened.connections:
                del use.streams[name]
                if opened.counted:
                    pool.put_back()

    async def _permit(self, opened: OpenStream, pool: Pool, most: int, patience: float) -> None:
        async with opened.opening:
            if not opened.counted:
                await self._draw_stream(pool, most, patience)
                opened.counted = True

    async def _draw_stream(self, pool: Pool, most: int, patience: float) -> None:
        until = self._clock.monotonic() + patience
        while True:
            try:
                return await pool.draw(most)
            except Exhausted as full:
                left = until - self._clock.monotonic()
                if left <= 0:
                    raise self._refuse(over_use("streams", most, full.retry_after)) from None
                await self._clock.sleep(min(max(full.retry_after, 0.1), left))
            except CountersUnavailable:
                raise self._refuse(unchecked("streams")) from None

    # What is known

    def _limits(self, tenant: TenantContext) -> Limits | None:
        try:
            limits = self._limits_of(tenant)
        except Exception:
            logger.exception("the function that says what tenants may use failed")
            raise self._refuse(unchecked("limits")) from None
        if limits is not None and not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
            logger.error("the function that says what tenants may use returned %s", type(limits).__name__)
            raise self._refuse(unchecked("limits"))
        return limits

    def _of(self, tenant: str) -> TenantUse:
        use = self._tenants.get(tenant)
        if use is None:
            if len(self._tenants) >= MAX_TENANTS and not self._make_room():
                raise self._refuse(unchecked("tenants"))
            use = self._tenants[tenant] = TenantUse(
                tenant, self._sharing, sessions=self._census.sessions, state=self._census.state
            )
            self._busy.set()
        return use

    def _make_room(self) -> bool:
        for tenant, use in islice(self._tenants.items(), LOOK_AT):
            if use.resting:
                self._drop(tenant, use)
                return True
        return False

    def _drop(self, tenant: str, use: TenantUse) -> None:
        self._drawn += use.drawn
        del self._tenants[tenant]

    def _refuse(self, refusal: LimitExceeded) -> LimitExceeded:
        if refusal.unchecked:
            self.unchecked += 1
        else:
            self.refused[refusal.limit] += 1
        return refusal

    async def _look_forever(self) -> None:
        while True:
            await self._busy.wait()
            await self._clock.sleep(LOOK_EVERY)
            try:
                await self._look()
            except Exception:
                logger.exception("what tenants use could not be tidied")

    async def _look(self) -> None:
        due: list[Tidy] = []
        for tenant, use in list(self._tenants.items()):
            due += use.due()
            if use.forgettable:
                self._drop(tenant, use)
        await self._tidy(due)
        self._sessions.forget_resting(self._clock.monotonic())
        if not self._tenants:
            self._busy.clear()

    async def _tidy(self, due: list[Tidy]) -> None:
        for start in range(0, len(due), TIDY_AT_ONCE):
            await asyncio.gather(*(tidy() for tidy in due[start : start + TIDY_AT_ONCE]))

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            **{f"limits_refused_{name}_total": self.refused[name] for name in _NAMES},
            "limits_refused_unchecked_total": self.unchecked,
            "limits_shares_drawn_total": self._drawn + sum(use.drawn for use in self._tenants.values()),
            "limits_tenants": len(self._tenants),
            "limits_sessions": len(self._sessions),
            **self._sharing.counters.stats(),
        }
