"""`Allowance`: what calls of one tenant, in one session or in none, may use and do use at this node."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from ...actors.session.errors import LimitExceeded
from ...actors.session.messages import Call
from ...actors.session.wire import encode
from .counters import CountersUnavailable
from .limits import NO_SESSION_LIMITS, Limits
from .refusing import over_rate, over_size, over_use, unchecked
from .sharing import Exhausted

if TYPE_CHECKING:
    from .local_rate import LocalRate
    from .permit_pool import PermitPool
    from .rate_pool import RatePool
    from .session_use import SessionUse
    from .tenant_use import TenantUse
    from .usage import Usage

    _Rates = tuple[RatePool | None, int, LocalRate | None, int]
    """What the tenant has of its limit of a minute, and the limit; the same of the session. None: there is none."""

__all__ = ["Allowance"]

_PLENTY: Final = 2**63
"""More than any limit."""


class Allowance:
    """See `actors.session.limiting.Allowance`. Made once for as long as the limits stay what they are, and shared by
    calls: whatever can be found out before a call comes stands here.
    """

    __slots__ = (
        "_calls",
        "_flight",
        "_largest",
        "_largest_in_session",
        "_monotonic",
        "_most_in_flight",
        "_own",
        "_own_flight",
        "_own_result_rate",
        "_reads",
        "_result_rate",
        "_session",
        "_state",
        "_usage",
        "bounds_results",
        "bounds_state",
        "limits",
        "tenant",
    )

    def __init__(self, usage: Usage, limits: Limits, tenant: TenantUse, session: SessionUse | None) -> None:
        """`session`: of the one that the calls name; None: they name none, or sessions have no limits of their own."""
        own = NO_SESSION_LIMITS if session is None else limits.per_session
        self.limits = limits
        self.tenant = tenant
        self._usage = usage
        self._session = session
        self._own = own
        self._monotonic = usage.sharing.clock.monotonic
        self._flight = None if limits.calls_in_flight is None else tenant.in_flight
        self._most_in_flight = limits.calls_in_flight or 0
        self._own_flight = _or_plenty(own.calls_in_flight)
        calls, reads = (None, None) if session is None else (session.calls, session.reads)
        self._calls = _rates(limits.calls_per_minute, tenant.calls, own.calls_per_minute, calls)
        self._reads = _rates(limits.read_only_calls_per_minute, tenant.reads, own.read_only_calls_per_minute, reads)
        self._result_rate = limits.result_bytes_per_minute
        self._own_result_rate = _or_plenty(own.result_bytes_per_minute)
        self._state = limits.state_bytes
        self._largest = _or_plenty(limits.result_bytes)
        self._largest_in_session = min(self._largest, _or_plenty(own.result_bytes))
        bounds = (limits.result_bytes, own.result_bytes, self._result_rate, own.result_bytes_per_minute)
        self.bounds_results = any(bound is not None for bound in bounds)
        self.bounds_state = limits.state_bytes is not None or own.state_bytes is not None

    # In flight

    def enter(self, call: Call) -> Awaitable[None] | None:
        """`call` has come: it is in flight until it is let go. Something to await where it cannot be told at once
        whether it may.

        Raises:
            LimitExceeded: It may not; nothing is counted.
        """
        session, pool = self._session, self._flight
        if session is not None and session.in_flight >= self._own_flight:
            raise self._too_many_in_session()
        # As in `_entered`, which each call would pay for.
        if pool is None:
            self.tenant.under_way += 1
        elif not pool.take(self._most_in_flight):
            return self._enter_slowly(call, pool)
        self.tenant.look_at = 0.0
        if session is not None:
            session.in_flight += 1
            session.recent = True
        call.allowance = self
        call.release = self._leave
        return None

    def _leave(self, call: Call) -> None:
        session, pool = self._session, self._flight
        if session is not None:
            session.in_flight -= 1
        if pool is None:
            self.tenant.under_way -= 1
        else:
            pool.put_back()

    async def _enter_slowly(self, call: Call, pool: PermitPool) -> None:
        session, most = self._session, self._most_in_flight
        try:
            await pool.draw(most)
        except Exhausted as full:
            raise self._usage.refuse(over_use("calls_in_flight", most, full.retry_after)) from None
        except CountersUnavailable:
            raise self._usage.refuse(unchecked("calls_in_flight")) from None
        if session is not None and session.in_flight >= self._own_flight:
            pool.put_back()
            raise self._too_many_in_session()
        self._entered(call)

    def _entered(self, call: Call) -> None:
        self.tenant.look_at = 0.0
        if self._session is not None:
            self._session.in_flight += 1
            self._session.recent = True
        call.allowance = self
        call.release = self._leave

    def _too_many_in_session(self) -> LimitExceeded:
        return self._usage.refuse(over_use("calls_in_flight", self._own_flight, 1.0, of_session=True))

    # Spending

    def begin(self, call: Call, *, stateful: bool, read_only: bool) -> Awaitable[None] | None:
        """See the seam."""
        now = self._monotonic()
        session = self._session if stateful else None
        if session is not None and session.results.total >= self._own_result_rate:
            self._may_result(session, now)
        most = self._result_rate
        if most is not None:
            results = self.tenant.results
            if (results.spent >= most or now > results.fresh_until) and results.may_begin(most) is not True:
                return self._begin_slowly(call, stateful, read_only)
        if stateful and self._state is not None and now > self.tenant.state.fresh_until:
            return self._begin_slowly(call, stateful, read_only)
        if call.method != "tools/call":
            return None
        pool, most, own, own_most = self._reads if read_only else self._calls
        if own is not None and stateful:
            wait = own.take(own_most, now)
            if wait is not None:
                raise self._usage.refuse(over_rate(_rate(read_only), own_most, wait, of_session=True))
        if pool is None or pool.take(most, now):
            return None
        return self._draw_call(_rate(read_only), most, pool, own if stateful else None)

    def _may_result(self, session: SessionUse, now: float) -> None:
        most = self._own_result_rate
        wait = session.results.wait(most, now)
        if wait is not None:
            raise self._usage.refuse(over_rate("result_bytes_per_minute", most, wait, of_session=True))

    async def _begin_slowly(self, call: Call, stateful: bool, read_only: bool) -> None:
        most = self._result_rate
        if most is not None:
            try:
                await self.tenant.results.look(most)
            except Exhausted as spent:
                raise self._usage.refuse(over_rate("result_bytes_per_minute", most, spent.retry_after)) from None
            except CountersUnavailable:
                raise self._usage.refuse(unchecked("result_bytes_per_minute")) from None
        if stateful and self._state is not None and self._monotonic() > self.tenant.state.fresh_until:
            try:
                await self.tenant.state.learn()
            except CountersUnavailable:
                raise self._usage.refuse(unchecked("state_bytes")) from None
        # What has just been looked up is fresh.
        beginning = self.begin(call, stateful=stateful, read_only=read_only)
        if beginning is not None:
            await beginning

    async def _draw_call(self, name: str, most: int, pool: RatePool, of_session: LocalRate | None) -> None:
        try:
            await pool.draw(most)
        except BaseException as error:
            if of_session is not None:
                of_session.untake()
            if isinstance(error, Exhausted):
                raise self._usage.refuse(over_rate(name, most, error.retry_after)) from None
            if isinstance(error, CountersUnavailable):
                raise self._usage.refuse(unchecked(name)) from None
            raise

    def check_result(self, call: Call, result: dict[str, Any], *, stateful: bool) -> None:
        """See the seam."""
        try:
            encoded = encode(result)
        except ValueError:
            # It is not going to be sent.
            return
        size = len(encoded)
        largest = self._largest_in_session if stateful else self._largest
        if size > largest:
            raise self._usage.refuse(over_size(largest, size))
        if call.method == "tools/call":
            call.encoded = (result, encoded)
        if self._result_rate is not None:
            self.tenant.results.spend(size)
        session = self._session
        if session is not None and stateful and self._own_result_rate < _PLENTY:
            session.results.spend(size, self._monotonic())

    def max_state(self, present: int, most: int) -> int:
        """See the seam."""
        own, of_tenant = self._own.state_bytes, self._state
        bound = most if own is None else min(most, own)
        if of_tenant is not None:
            stock = self.tenant.state
            left = of_tenant - (stock.present or 0)
            if left * 10 < of_tenant:
                stock.count_soon()
            bound = min(bound, present + max(0, left))
        # What is there may stay, and shrink.
        return max(bound, min(present, most))


def _or_plenty(limit: int | None) -> int:
    return _PLENTY if limit is None else limit


def _rates(limit: int | None, pool: RatePool, own_limit: int | None, own: LocalRate | None) -> _Rates:
    return (
        None if limit is None else pool,
        _or_plenty(limit),
        None if own_limit is None else own,
        _or_plenty(own_limit),
    )


def _rate(read_only: bool) -> str:
    return "read_only_calls_per_minute" if read_only else "calls_per_minute"
