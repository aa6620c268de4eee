"""Limiters of several nodes in one process, on a clock that a test moves."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from understudy.actors.clock import Clock
from understudy.actors.session import TenantContext
from understudy.actors.session.errors import LimitExceeded
from understudy.actors.session.exchange import Exchange
from understudy.actors.session.messages import Call
from understudy.actors.task_owner import TaskOwner
from understudy.actors.testing import ManualClock
from understudy.runtime.limits import Counters
from understudy.runtime.limits.allowance import Allowance
from understudy.runtime.limits.census import StoreCensus
from understudy.runtime.limits.guarded_counters import GuardedCounters
from understudy.runtime.limits.limiter import Limiter
from understudy.runtime.limits.limits import limits_of
from understudy.runtime.limits.sharing import Sharing
from understudy.runtime.limits.usage import Usage
from understudy.stores import MemoryStore

ACME = TenantContext("acme", "ada")
EPOCH = 1_780_000_000.0


class Node:
    """One node's limiter."""

    def __init__(self, limiter: Limiter, guarded: GuardedCounters) -> None:
        self.limiter = limiter
        self.guarded = guarded
        self.allowed = self.refused = 0

    async def call(self, tenant: TenantContext = ACME, *, read_only: bool = False) -> LimitExceeded | None:
        """A call of a tool without a session: None if it may run."""
        call = await self.enter(tenant)
        if not isinstance(call, Call):
            self.refused += 1
            return call
        try:
            if call.allowance is not None:
                beginning = call.allowance.begin(call, stateful=False, read_only=read_only)
                if beginning is not None:
                    await beginning
        except LimitExceeded as error:
            self.refused += 1
            return error
        finally:
            call.let_go()
        self.allowed += 1
        return None

    def allowance(self, tenant: TenantContext = ACME) -> Allowance:
        """What a call of the tenant's that names no session may use."""
        allowance = self.limiter.usage.allowance(tenant, None)
        assert allowance is not None
        return allowance

    async def enter(self, tenant: TenantContext = ACME) -> Call | LimitExceeded:
        """A request that is in flight until its `let_go` is called."""
        call = request(tenant)
        try:
            entering = self.limiter.permits.enter(call, None)
            if entering is not None:
                await entering
        except LimitExceeded as error:
            return error
        return call


_ids = itertools.count(1)


def request(tenant: TenantContext = ACME, method: str = "tools/call") -> Call:
    id = next(_ids)
    return Call(id, method, {"name": "tool"}, tenant, Exchange(id, method))


@asynccontextmanager
async def node(
    name: str,
    limits: Any,
    counters: Counters,
    clock: Clock,
    *,
    when_failing: Any = "open",
    alive: Callable[[str], bool | None] = lambda holder: True,
    store: Any = None,
    deadline: float = 1e9,
    drift: float = 0.0,
    me: Callable[[], str] | None = None,
) -> AsyncIterator[Node]:
    """`deadline` of the counters is by `clock`, which a test moves faster than real servers answer."""
    async with TaskOwner() as tasks:
        guarded = GuardedCounters(counters, when_failing=when_failing, clock=clock, tasks=tasks, deadline=deadline)
        sharing = Sharing(
            guarded,
            clock,
            lambda: EPOCH + clock.monotonic() + drift,
            me or (lambda: name),
            alive,
            tasks,
            itertools.count(1).__next__,
        )
        census = StoreCensus(store or MemoryStore(), clock=clock, timeout=5.0)
        async with Limiter(Usage(limits_of(limits), sharing, census)) as limiter:
            yield Node(limiter, guarded)


class Shared:
    """Counters that nodes in this process share, which can fail, hang or be slow."""

    shared = True

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.changes = 0
        self.broken: Callable[[], Any] | None = None
        """Awaited before each change, if given."""

    async def change(self, key: str, step: Any, lasting: float | None = None) -> Any:
        self.changes += 1
        if self.broken is not None:
            await self.broken()
        return await self.inner.change(key, step, lasting)


@asynccontextmanager
async def nodes(
    count: int, limits: Any, counters: Callable[[int], Counters], clock: ManualClock, **options: Any
) -> AsyncIterator[list[Node]]:
    """So many; `counters` makes each node's, by its number."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(node(f"node-{number}.1", limits, counters(number), clock, **options))
            for number in range(count)
        ]
