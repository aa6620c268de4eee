"""`TenantNews`: what a node does when it hears that a tenant has changed."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ...actors.foreign_errors import ends_the_task
from ...actors.session.relay import Relay
from ...actors.session.servers import Servers
from ...actors.session.tenant_changes import TenantChanges
from ...actors.session.tenants.helpers import TenantHelpers
from ..credentials.tenants import TenantResolver, forget_tenant
from .open_streams import OpenStreams

__all__ = ["TenantHook", "TenantNews"]

logger = logging.getLogger(__name__)

TenantHook = Callable[[str | None], Awaitable[None] | None]
"""Told of the tenant that has changed; None: any may have."""

HOOK_TIMEOUT: Final = 5.0
"""Seconds that one hook may take."""
MOST_WAITING: Final = 4096
"""Tenants whose news wait; with more, all count as changed."""


class TenantNews:
    """What is remembered of the tenant's credentials goes at once; then hooks are told, then clients.

    Servers and surfaces are not touched: each is made anew when it is next used.
    """

    def __init__(
        self,
        changes: TenantChanges,
        hooks: list[TenantHook],
        *,
        resolver: TenantResolver | None,
        servers: Servers,
        relay: Relay,
        open_streams: OpenStreams | None,
        helpers: TenantHelpers,
    ) -> None:
        """`hooks`: a list that others add to."""
        self._changes = changes
        self._hooks = hooks
        self._resolver = resolver
        self._servers = servers
        self._relay = relay
        self._open_streams = open_streams
        self._helpers = helpers
        self._waiting: dict[str | None, None] = {}
        self._some = asyncio.Event()
        self.applied = 0

    def heard(self, tenant: str | None) -> None:
        """News from another node: what must not wait is done now, and the rest by `run`."""
        self._forget(tenant)
        if tenant is None or len(self._waiting) >= MOST_WAITING:
            self._waiting = {None: None}
        elif None not in self._waiting:
            self._waiting[tenant] = None
        self._some.set()

    async def apply(self, tenant: str | None) -> None:
        """Do all of it here. Cancelled, hooks and clients may not have been told."""
        self._forget(tenant)
        await self._tell(tenant)

    async def run(self) -> None:
        """Do what `heard` has left to do, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            waiting, self._waiting = self._waiting, {}
            for tenant in waiting:
                try:
                    await self._tell(tenant)
                except Exception:
                    logger.exception("not all of this node has been told that a tenant has changed")

    def _forget(self, tenant: str | None) -> None:
        self.applied += 1
        self._changes.note(tenant)
        forget_tenant(self._resolver, tenant)
        self._helpers.forget(tenant)
        if self._open_streams is not None:
            self._open_streams.check_soon(tenant)

    async def _tell(self, tenant: str | None) -> None:
        for hook in list(self._hooks):
            try:
                async with asyncio.timeout(HOOK_TIMEOUT):
                    told = hook(tenant)
                    if inspect.isawaitable(told):
                        await told
            except TimeoutError:
                logger.error("a hook of tenant changes took longer than %g s, and was given up: %r", HOOK_TIMEOUT, hook)
            except BaseException as error:
                if ends_the_task(error):
                    raise
                logger.exception("a hook of tenant changes failed: %r", hook)
        await self._servers.tell_lists(tenant)
        await self._relay.tell_lists(tenant)

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {"tenant_changes_total": self.applied}
