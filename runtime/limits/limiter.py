"""`Limiter`: holds tenants and sessions to their limits, at one node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self

from ...actors.departure import Departure
from ...actors.session import TenantContext
from ...actors.session.snapshot import SessionSnapshot
from ...stores import Address
from .permits import Permits
from .usage import Usage

__all__ = ["Limiter"]


class Limiter:
    """`CallLimits`: what sessions keep. What calls spend is for `Permits` and `Allowance`.

    Used as an async context manager. Entering starts one task, which does nothing while nobody uses anything.
    """

    def __init__(self, usage: Usage) -> None:
        self.usage = usage
        self.permits = Permits(usage)
        """What the legs ask before they deliver a request or open a stream."""
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
