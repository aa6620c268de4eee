"""`understudy bench limits`: what it costs a local call that its tenant has limits."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack
from time import process_time
from typing import Any

from ..actors.clock import SystemClock
from ..actors.session import TenantContext
from ..actors.session.exchange import Exchange
from ..actors.session.messages import Call
from ..actors.task_owner import TaskOwner
from ..runtime.limits import Limits, SessionLimits
from ..runtime.limits.options import LimitOptions
from ..stores import Address, MemoryStore
from .clients import HandshakeClient, PreparedCall
from .measure import Effort, Progress, Side, Stopwatch, interleave
from .report import Report, Scenario, Series, Target, ratio
from .servers import ARGUMENTS, TOOL, ten_tools
from .sides import understudy_app

__all__ = ["bench_limits"]

TARGET = Target("at most", 1.1)
PLENTY = 2**50

RATES = Limits(calls_per_minute=PLENTY, read_only_calls_per_minute=PLENTY, calls_in_flight=PLENTY)
EVERYTHING = Limits(
    calls_per_minute=PLENTY,
    read_only_calls_per_minute=PLENTY,
    calls_in_flight=PLENTY,
    sessions=PLENTY,
    streams=PLENTY,
    state_bytes=PLENTY,
    result_bytes=PLENTY,
    result_bytes_per_minute=PLENTY,
    per_session=SessionLimits(
        calls_per_minute=PLENTY,
        read_only_calls_per_minute=PLENTY,
        calls_in_flight=PLENTY,
        state_bytes=PLENTY,
        result_bytes=PLENTY,
        result_bytes_per_minute=PLENTY,
    ),
)


async def bench_limits(effort: Effort, progress: Progress) -> Report:
    """Measure; `effort` says how long."""
    async with AsyncExitStack() as stack:
        clients: list[HandshakeClient] = []
        for limits in (None, RATES, EVERYTHING):
            app = await stack.enter_async_context(understudy_app(ten_tools(), limits=limits))
            clients.append(await HandshakeClient.open(app))
        tasks = await stack.enter_async_context(TaskOwner())
        check = await _bare_check(stack, tasks)
        call = PreparedCall(TOOL, ARGUMENTS)
        # Nothing waits here, so that processor time is what it costs, however busy the machine is; and by the median
        # call, as who comes between leaves the caches cold.
        watches = [Stopwatch(lambda client=client: client.call(call), process_time) for client in clients]
        names = ("no limits", "calls a minute and in flight", "every limit there is")
        sides = [Side(name, watch.run) for name, watch in zip(names, watches, strict=True)]
        sides.append(Side("the check alone", check))
        *_, alone = await interleave(sides, effort, progress, process_time)
        seconds = [*(watch.medians(effort) for watch in watches), alone]
    series = [
        Series(side.name, "us/call", tuple(each * 1e6 for each in figures))
        for side, figures in zip(sides, seconds, strict=True)
    ]
    plain, some, all_of_them, _ = series
    comparisons = (
        ratio("with calls a minute and in flight / without", some, plain, TARGET),
        ratio("with every limit / without", all_of_them, plain, TARGET),
    )
    return Report("limits", (Scenario("one local call at a time", tuple(series), comparisons),), effort.quick)


async def _bare_check(stack: AsyncExitStack, tasks: TaskOwner) -> Any:
    """What the call goes through, and nothing else: in flight, a token, and out again."""
    options = LimitOptions.of(RATES, clock=SystemClock())
    assert options is not None
    limiter = await stack.enter_async_context(
        options.running(node="bench", store=MemoryStore(), cluster=None, tasks=tasks, store_timeout=5.0)
    )
    tenant = TenantContext("bench", "bench")
    session = Address.new("session")
    ids = itertools.count(1)

    async def run(operations: int) -> None:
        for _ in range(operations):
            call = Call(next(ids), "tools/call", None, tenant, _EXCHANGE)
            entering = limiter.permits.enter(call, session)
            if entering is not None:
                await entering
            if call.allowance is not None:
                beginning = call.allowance.begin(call, stateful=True, read_only=False)
                if beginning is not None:
                    await beginning
            call.let_go()

    return run


_EXCHANGE = Exchange(1, "tools/call")
