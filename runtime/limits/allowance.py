"""`Allowance`: what calls of one tenant, in one session or in none, may use and do use at this node."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ...actors.session.messages import Call
from ...actors.session.wire import encode
from .counters import CountersUnavailable
from .limits import NO_SESSION_LIMITS, Limits
from .pool import Exhausted, Pool
from .refusing import over_rate, over_size, over_use, unchecked

if TYPE_CHECKING:
    from .local_rate import LocalRate
    from .session_use import SessionUse
    from .tenant_use import TenantUse
    from .usage import Usage

    _Rates = tuple[int | None, Pool, int | None, LocalRate | None]
    """The tenant's limit of a minute, and what it has of it; the same of the session."""

__all__ = ["Allowance"]


class Allowance:
    """See `actors.session.limiting.Allowance`. Made once for as long as the limits stay what they are, and shared by
    calls: whatever can be found out before a call comes stands here.
    """

    __slots__ = (
        "_calls",
        "_flight",
        "_largest",
        "_monotonic",
        "_needs_time",
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
        self._flight = limits.calls_in_flight
        self._own_flight = own.calls_in_flight
        calls, reads = (None, None) if session is None else (session.calls, session.reads)
        self._calls: _Rates = (limits.calls_per_minute, tenant.calls, own.calls_per_minute, calls)
        self._reads: _Rates = (limits.read_only_calls_per_minute, tenant.reads, own.read_only_calls_per_minute, reads)
        self._result_rate = limits.result_bytes_per_minute
        self._own_result_rate = own.result_bytes_per_minute
        self._state = limits.state_bytes
        sizes = [most for most in (limits.result_bytes, own.result_bytes) if most is not None]
        self._largest = min(sizes, default=None)
        rates = (self._result_rate, self._own_result_rate)
        self._needs_time = own is not NO_SESSION_LIMITS or self._result_rate is not None or self._state is not None
        self.bounds_results = bool(sizes) or any(rate is not None for rate in rates)
        self.bounds_state = limits.state_bytes is not None or own.state_bytes is not None

    # In flight

    def enter(self, call: Call) -> Awaitable[None] | None:
        """`call` has come: it is in flight until it is let go. Something to await where it cannot be told at once
        whether it may.

        Raises:
            LimitExceeded: It may not; nothing is counted.
        """
        session, own = self._session, self._own_flight
        if own is not None and session is not None and session.in_flight >= own:
            raise self._usage.refuse(over_use("calls_in_flight", own, 1.0, of_session=True))
        most = self._flight
        if most is not None and not self.tenant.in_flight.take(most):
            return self._enter_slowly(call, most)
        # As in `_entered`, which each call would pay for.
        tenant = self.tenant
        tenant.look_at = 0.0
        tenant.under_way += 1
        if session is not None:
            session.in_flight += 1
        call.allowance = self
        call.release = self._leave
        return None

    def _entered(self, call: Call) -> None:
        self.tenant.look_at = 0.0
        self.tenant.under_way += 1
        if self._session is not None:
            self._session.in_flight += 1
        call.allowance = self
        call.release = self._leave

    def _leave(self, call: Call) -> None:
        self.tenant.under_way -= 1
        if self._session is not None:
            self._session.in_flight -= 1
        if self._flight is not None:
            self.tenant.in_flight.put_back()

    async def _enter_slowly(self, call: Call, most: int) -> None:
        pool, session, own = self.tenant.in_flight, self._session, self._own_flight
        try:
            await pool.draw(most)
        except Exhausted as full:
            raise self._usage.refuse(over_use("calls_in_flight", most, full.retry_after)) from None
        except CountersUnavailable:
            raise self._usage.refuse(unchecked("calls_in_flight")) from None
        if own is not None and session is not None and session.in_flight >= own:
            pool.put_back()
            raise self._usage.refuse(over_use("calls_in_flight", own, 1.0, of_session=True))
        self._entered(call)

    # Spending

    def begin(self, call: Call, *, stateful: bool, read_only: bool) -> Awaitable[None] | None:
        """See the seam."""
        session = self._session if stateful else None
        now = self._monotonic() if self._needs_time else 0.0
        most = self._own_result_rate
        if session is not None and most is not None and session.results.total >= most:
            wait = session.results.wait(most, now)
            if wait is not None:
                raise self._usage.refuse(over_rate("result_bytes_per_minute", most, wait, of_session=True))
        most = self._result_rate
        if most is not None:
            results = self.tenant.results
            if (results.spent >= most or now > results.fresh_until) and results.may_begin(most) is not True:
                return self._begin_slowly(call, stateful, read_only)
        if stateful and self._state is not None and now > self.tenant.state.fresh_until:
            return self._begin_slowly(call, stateful, read_only)
        if call.method != "tools/call":
            return None
        most, pool, most_of_session, of_session = self._reads if read_only else self._calls
        taken: LocalRate | None = None
        if session is not None and most_of_session is not None and of_session is not None:
            taken = of_session
            wait = of_session.take(most_of_session, now)
            if wait is not None:
                raise self._usage.refuse(over_rate(_rate(read_only), most_of_session, wait, of_session=True))
        return None if most is None or pool.take(most) else self._draw_call(_rate(read_only), most, pool, taken)

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

    async def _draw_call(self, name: str, most: int, pool: Pool, of_session: LocalRate | None) -> None:
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
        session = self._session if stateful else None
        largest = self._largest if stateful else self.limits.result_bytes
        if largest is not None and size > largest:
            raise self._usage.refuse(over_size(largest, size))
        if call.method == "tools/call":
            call.encoded = (result, encoded)
        if self._result_rate is not None:
            self.tenant.results.spend(size)
        if session is not None and self._own_result_rate is not None:
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


def _rate(read_only: bool) -> str:
    return "read_only_calls_per_minute" if read_only else "calls_per_minute"
