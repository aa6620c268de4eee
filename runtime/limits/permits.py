"""`Permits`: what a request holds while it is in flight, and a stream while it is read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

from ...actors.session import TenantContext
from ...actors.session.messages import Call
from ...stores import Address
from .counters import CountersUnavailable
from .permit_pool import PermitPool
from .refusing import over_use, unchecked
from .session_use import OpenStream
from .sharing import Exhausted
from .usage import Usage

__all__ = ["NOT_METERED", "Permits"]

LISTEN: Final = "subscriptions/listen"
NOT_METERED: Final = frozenset({"initialize", "ping", LISTEN})
"""What is not counted as a call in flight, and goes on whatever results have cost."""
RESUME_PATIENCE: Final = 3.0
"""Seconds that a client waits who resumes a stream: the connection that it lost may still count at another node."""


class Permits:
    """What the legs ask before they deliver a request or open a stream."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._clock = usage.sharing.clock

    # Requests

    def enter(self, call: Call, session: Address | None) -> Awaitable[None] | None:
        """`call` has come, for `session` if it has one: it is in flight until it has its outcome, or opens a session.

        Something to await where it cannot be told at once whether it may.

        Raises:
            LimitExceeded: It may not; nothing is counted.
        """
        if call.method in NOT_METERED:
            return self._enter_special(call)
        allowance = self._usage.allowance(call.tenant, session)
        return None if allowance is None else allowance.enter(call)

    def _enter_special(self, call: Call) -> Awaitable[None] | None:
        limits = self._usage.limits(call.tenant)
        if limits is None:
            return None
        if call.method == "initialize" and limits.sessions is not None:
            return self._open_session(call, limits.sessions)
        if call.method == LISTEN and limits.streams is not None:
            return self._listen(call, limits.streams)
        return None

    async def _open_session(self, call: Call, most: int) -> None:
        tenant = call.tenant.tenant
        await self._usage.add_session(tenant, most)

        def release(call: Call) -> None:
            if call.exchange.refusal is not None or call.exchange.elsewhere is not None:
                self._usage.drop_session(tenant)

        call.release = release

    async def _listen(self, call: Call, most: int) -> None:
        pool = self._usage.of(call.tenant.tenant).streams
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
        limits = self._usage.limits(tenant)
        own = None if limits is None else limits.per_session.streams
        if limits is None or (limits.streams is None and own is None):
            yield
            return
        pool = self._usage.of(tenant.tenant).streams
        use = self._usage.of_session(session, tenant)
        opened = use.streams.get(name)
        if opened is None:
            if own is not None and len(use.streams) >= own:
                raise self._usage.refuse(over_use("streams", own, 1.0, of_session=True))
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

    async def _permit(self, opened: OpenStream, pool: PermitPool, most: int, patience: float) -> None:
        async with opened.opening:
            if not opened.counted:
                await self._draw_stream(pool, most, patience)
                opened.counted = True

    async def _draw_stream(self, pool: PermitPool, most: int, patience: float) -> None:
        until = self._clock.monotonic() + patience
        while True:
            try:
                return await pool.draw(most)
            except Exhausted as full:
                left = until - self._clock.monotonic()
                if left <= 0:
                    raise self._usage.refuse(over_use("streams", most, full.retry_after)) from None
                await self._clock.sleep(min(max(full.retry_after, 0.1), left))
            except CountersUnavailable:
                raise self._usage.refuse(unchecked("streams")) from None
