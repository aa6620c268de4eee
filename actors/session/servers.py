"""`Servers`: where sessions get their MCP servers from."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, cast
from weakref import WeakValueDictionary

from mcp.server.subscriptions import SubscriptionBus

from ..task_owner import TaskOwner
from .commons import Commons
from .errors import HostingError
from .handles import check_names
from .hiding import unheard
from .hosting import HostedServer, has_lifespan, is_server
from .lifespan import Lifespan
from .server_factory import ServerFactory, make_server
from .surface import SURFACE
from .surfaces import Surfaces, ToolsFor
from .tenant import TenantContext
from .tenant_bus import ALL_LISTS
from .tenant_changes import TenantChanges
from .tenant_shared import TenantShared
from .tenants.helpers import TenantHelpers
from .tenants.running import RUNNING, Running

__all__ = ["Servers"]

logger = logging.getLogger(__name__)

MAX_SURFACES = 256
"""Servers kept for modern-era calls without a handle, one for each distinct tenant surface."""
MAX_TENANTS = 1024
"""Tenants whose servers' common parts are kept while none of their servers is in memory."""
STOP_TIMEOUT = 10.0
"""Seconds that all lifespans together may take to end; after that they are cancelled."""


class Servers:
    """One server for everybody, or a factory `(tenant) -> server` that makes each session its own.

    Used as an async context manager, which the lifespans of all servers live within.
    """

    def __init__(
        self,
        server_or_factory: object,
        *,
        commons: Commons | None = None,
        tools_for: ToolsFor | None = None,
        changes: TenantChanges | None = None,
        factory_timeout: float = 10.0,
        lifespan_timeout: float = 30.0,
    ) -> None:
        """Both timeouts in seconds: to make one server (or to name its tools), and to start the lifespan of one that a
        factory has made.

        `commons`: what the servers share with those of other nodes. `tools_for`: the names of the tools that each
        tenant has; None: all. `changes`: tells what is out of date.

        Raises:
            HostingError: Neither an MCP server nor callable.
        """
        self._one: HostedServer | None = None
        self._factory: ServerFactory | None = None
        self._commons = commons
        self._changes = changes or TenantChanges()
        self.surfaces = Surfaces(tools_for, self._changes, timeout=factory_timeout)
        """What each credential sees."""
        if is_server(server_or_factory):
            self._one = HostedServer(server_or_factory, commons=commons, filtered=self.surfaces.by_name)
        elif callable(server_or_factory):
            self._factory = cast("ServerFactory", server_or_factory)
        else:
            raise HostingError(
                f"cannot host {type(server_or_factory).__name__!r}: need an MCPServer, a low-level Server, a FastMCP "
                "server, or a function (tenant) -> server"
            )
        self.helpers: TenantHelpers | None = None
        """What factories, too, get from the tenant that they make a server for: set by whoever makes both."""
        self._factory_timeout = factory_timeout
        self._lifespan_timeout = lifespan_timeout
        self._tasks = TaskOwner()
        self._lifespans: set[Lifespan] = set()
        self._by_surface: OrderedDict[Any, HostedServer] = OrderedDict()
        self._making: dict[Any, asyncio.Event] = {}
        self._shared: WeakValueDictionary[str, TenantShared] = WeakValueDictionary()
        self._recent: OrderedDict[str, TenantShared] = OrderedDict()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        if self._one is not None:
            try:
                await self._start(self._one, None)
            except BaseException as error:
                await self._tasks.__aexit__(type(error), error, error.__traceback__)
                raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for lifespan in self._lifespans:
            lifespan.end()
        # Only one that hangs: the others have ended, and are no longer here, by then.
        timer = asyncio.get_running_loop().call_later(STOP_TIMEOUT, self._cut)
        try:
            await self._tasks.__aexit__(exc_type, exc, tb)
        finally:
            timer.cancel()

    def _cut(self) -> None:
        for lifespan in self._lifespans:
            logger.error("the lifespan of server %r did not end within %g s", lifespan.name, STOP_TIMEOUT)
            lifespan.cut()

    @property
    def filtered(self) -> bool:
        """Whether any server is known to hide anything from anybody."""
        return self.surfaces.active or (self._one is not None and self._one.filtered)

    def fits(self, hosted: HostedServer, tenant: TenantContext) -> bool:
        """Whether a session's server is what a call of `tenant` is to run on, or another is to be made in its place."""
        known = hosted.made_for
        if known is None:
            return True
        if known is not tenant and known.surface != tenant.surface:
            return False
        return not self._changes.outdated(tenant.tenant, hosted.made)

    async def may_repeat(self, tenant: TenantContext, tool: object) -> bool:
        """Whether a call of a tool may run twice, as far as `tenant` may know.

        Raises:
            HostingError: As `for_surface`.
        """
        hosted = await self.for_surface(tenant)
        if not hosted.filtered:
            return hosted.tools.may_repeat(tool)
        token = SURFACE.set(await self.surfaces.of(tenant))
        try:
            return hosted.tools.may_repeat(tool)
        finally:
            SURFACE.reset(token)

    async def unheard(self, tenant: TenantContext, uris: Sequence[str]) -> frozenset[str]:
        """Those of `uris` of whose changes a session of `tenant` must not hear, whether or not its server is there."""
        if not uris or not self.filtered:
            return frozenset()
        try:
            hosted = await self.for_surface(tenant)
            return await unheard(hosted, await self.surfaces.of(tenant), uris) if hosted.filtered else frozenset()
        except HostingError as error:
            logger.error("what a session may hear of is not known, so it hears of nothing: %s", error)
            return frozenset(uris)

    @property
    def one(self) -> HostedServer | None:
        """The server that everybody shares, or None where a factory makes them."""
        return self._one

    def bus(self, tenant: str) -> SubscriptionBus | None:
        """The bus on which the servers of a tenant publish changes; where one server is everybody's, that one's.

        None: that server is no `MCPServer`, and its bus is out of reach.
        """
        return self._one.bus if self._one is not None else self._shared_by(tenant).bus

    def shared_by(self, tenant: str) -> TenantShared | None:
        """What the servers of `tenant` publish on, whether or not one is in memory. It lasts while anybody holds it.

        None where one object serves everybody and its author has given it a bus of his own.
        """
        return self._one.relayed if self._one is not None else self._shared_by(tenant)

    async def tell_lists(self, tenant: str | None) -> None:
        """Have those of `tenant` who listen here, or all, hear that every list has changed."""
        if self._one is not None:
            if self._one.relayed is not None:
                await self._one.relayed.bus.deliver_lists(tenant)
            elif self._one.bus is not None:
                # The author's own: it has no tenants, and may carry it to other nodes as well. Once too often is right.
                for event in ALL_LISTS:
                    await self._one.bus.publish(event)
            return
        for shared in [self._shared.get(tenant)] if tenant is not None else list(self._shared.values()):
            if shared is not None:
                await shared.bus.deliver_lists(tenant)

    async def for_session(self, tenant: TenantContext) -> HostedServer:
        """A server for one session; give it back with `release`.

        Raises:
            HostingError: The factory or the server's lifespan failed, or took too long.
        """
        if self._one is not None:
            return self._one
        return await self._make(tenant)

    async def for_surface(self, tenant: TenantContext) -> HostedServer:
        """The server for modern-era calls of `tenant` that name no session: one for each distinct surface.

        The least recently used go.

        Raises:
            HostingError: As `for_session`; or it has a tool under a name that the modern era needs.
        """
        if self._one is not None:
            return self._one
        surface = tenant.surface
        while (making := self._making.get(surface)) is not None:
            await making.wait()
        outdated = self._by_surface.get(surface)
        if outdated is not None and self.fits(outdated, tenant):
            self._by_surface.move_to_end(surface)
            return outdated
        making = self._making[surface] = asyncio.Event()
        try:
            hosted = self._by_surface[surface] = await self._make(tenant, check=check_names)
        finally:
            del self._making[surface]
            making.set()
        if outdated is not None:
            _end_when_unused(outdated)
        if len(self._by_surface) > MAX_SURFACES:
            _end_when_unused(self._by_surface.popitem(last=False)[1])
        return hosted

    def release(self, hosted: HostedServer) -> None:
        """A session's server is no longer needed: its lifespan ends, when no turn runs on it any more."""
        if hosted is self._one:
            return
        hosted.retired = True
        if hosted.lifespan is not None and not hosted.turns:
            hosted.lifespan.end()

    async def _make(
        self, tenant: TenantContext, *, check: Callable[[HostedServer], None] | None = None
    ) -> HostedServer:
        running = RUNNING.set(Running(tenant, self.helpers))
        try:
            return await self._make_for(tenant, check)
        finally:
            RUNNING.reset(running)

    async def _make_for(self, tenant: TenantContext, check: Callable[[HostedServer], None] | None) -> HostedServer:
        assert self._factory is not None
        made = self._changes.latest
        server = await make_server(self._factory, tenant, timeout=self._factory_timeout)
        hosted = HostedServer(server, self._shared_by(tenant.tenant), self._commons, filtered=self.surfaces.by_name)
        hosted.made_for, hosted.made = tenant, made
        if hosted.filtered:
            self.surfaces.active = True
        if check is not None:
            check(hosted)
        if has_lifespan(hosted):
            try:
                await self._start(hosted, self._lifespan_timeout)
            except Exception as error:
                # Its text may tell of the inside of the server; the client gets none of it.
                raise HostingError(f"the lifespan of server {hosted.name!r} failed at its start: {error!r}") from error
        return hosted

    def _shared_by(self, tenant: str) -> TenantShared:
        shared = self._shared.get(tenant)
        if shared is None:
            bus = self._commons.bus_for(tenant) if self._commons is not None else None
            shared = self._shared[tenant] = TenantShared(bus)
        self._recent[tenant] = shared
        self._recent.move_to_end(tenant)
        if len(self._recent) > MAX_TENANTS:
            self._recent.popitem(last=False)
        return shared

    async def _start(self, hosted: HostedServer, timeout: float | None) -> None:
        lifespan = Lifespan(hosted.lowlevel)
        task = self._tasks.spawn(lifespan.run())
        self._lifespans.add(lifespan)
        task.add_done_callback(lambda _: self._lifespans.discard(lifespan))
        hosted.lifespan_state = await lifespan.begun(task, timeout)
        hosted.lifespan = lifespan


def _end_when_unused(hosted: HostedServer) -> None:
    """Calls may still run on it: its lifespan ends when the last of them has let go of it."""
    if hosted.lifespan is not None:
        weakref.finalize(hosted, hosted.lifespan.end_soon).atexit = False
