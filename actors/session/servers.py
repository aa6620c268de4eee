"""`Servers`: where sessions get their MCP servers from."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self, cast
from weakref import WeakValueDictionary

from ..task_owner import TaskOwner
from .errors import HostingError
from .handles import check_names
from .hosting import HostedServer, ServerFactory, TenantShared, has_lifespan, is_server, make_server, running
from .tenant import TenantContext

__all__ = ["Servers"]

logger = logging.getLogger(__name__)

MAX_SURFACES = 256
"""Servers kept for modern-era calls without a handle, one for each distinct tenant surface."""
STOP_TIMEOUT = 10.0
"""Seconds that all lifespans together may take to end; after that they are cancelled."""


class Servers:
    """One server for everybody, or a factory `(tenant) -> server` that makes each session its own.

    Used as an async context manager, which the lifespans of all servers live within.
    """

    def __init__(
        self, server_or_factory: object, *, factory_timeout: float = 10.0, lifespan_timeout: float = 30.0
    ) -> None:
        """Both timeouts in seconds: to make one server, and to start the lifespan of one that a factory has made.

        Raises:
            HostingError: Neither an MCP server nor callable.
        """
        self._one: HostedServer | None = None
        self._factory: ServerFactory | None = None
        if is_server(server_or_factory):
            self._one = HostedServer(server_or_factory)
        elif callable(server_or_factory):
            self._factory = cast("ServerFactory", server_or_factory)
        else:
            raise HostingError(
                f"cannot host {type(server_or_factory).__name__!r}: need an MCPServer, a low-level Server, a FastMCP "
                "server, or a function (tenant) -> server"
            )
        self._factory_timeout = factory_timeout
        self._lifespan_timeout = lifespan_timeout
        self._tasks = TaskOwner()
        self._lifespans: dict[HostedServer, _Lifespan] = {}
        self._surfaces: OrderedDict[Any, HostedServer] = OrderedDict()
        self._making: dict[Any, asyncio.Event] = {}
        self._shared: WeakValueDictionary[str, TenantShared] = WeakValueDictionary()

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
        for lifespan in self._lifespans.values():
            lifespan.stop.set()
        # Only one that hangs: the others have ended, and are no longer here, by then.
        timer = asyncio.get_running_loop().call_later(STOP_TIMEOUT, self._cut)
        try:
            await self._tasks.__aexit__(exc_type, exc, tb)
        finally:
            timer.cancel()

    def _cut(self) -> None:
        for hosted, lifespan in self._lifespans.items():
            logger.error("the lifespan of server %r did not end within %g s", hosted.name, STOP_TIMEOUT)
            lifespan.task.cancel()

    @property
    def one(self) -> HostedServer | None:
        """The server that everybody shares, or None where a factory makes them."""
        return self._one

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
        hosted = self._surfaces.get(surface)
        if hosted is not None:
            self._surfaces.move_to_end(surface)
            return hosted
        making = self._making[surface] = asyncio.Event()
        try:
            hosted = self._surfaces[surface] = await self._make(tenant, check=check_names)
        finally:
            del self._making[surface]
            making.set()
        if len(self._surfaces) > MAX_SURFACES:
            self.release(self._surfaces.popitem(last=False)[1])
        return hosted

    def release(self, hosted: HostedServer) -> None:
        """A session's server is no longer needed: its lifespan ends."""
        lifespan = self._lifespans.get(hosted) if hosted is not self._one else None
        if lifespan is not None:
            lifespan.stop.set()

    async def _make(
        self, tenant: TenantContext, *, check: Callable[[HostedServer], None] | None = None
    ) -> HostedServer:
        assert self._factory is not None
        server = await make_server(self._factory, tenant, timeout=self._factory_timeout)
        shared = self._shared.get(tenant.tenant)
        if shared is None:
            shared = self._shared[tenant.tenant] = TenantShared()
        hosted = HostedServer(server, shared)
        if check is not None:
            check(hosted)
        if has_lifespan(hosted):
            try:
                await self._start(hosted, self._lifespan_timeout)
            except Exception as error:
                # Its text may tell of the inside of the server; the client gets none of it.
                raise HostingError(f"the lifespan of server {hosted.name!r} failed at its start: {error!r}") from error
        return hosted

    async def _start(self, hosted: HostedServer, timeout: float | None) -> None:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = self._tasks.spawn(self._keep(hosted, started, stop))
        self._lifespans[hosted] = _Lifespan(stop, task)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await asyncio.shield(started)
        except BaseException:
            # Also where whoever needed the server is gone, and will not give it back.
            task.cancel()
            if limit.expired():
                raise TimeoutError(f"not started within {timeout} s") from None
            raise

    async def _keep(self, hosted: HostedServer, started: asyncio.Future[None], stop: asyncio.Event) -> None:
        # A lifespan may hold task groups, which must be left by the task that entered them: hence one task for each.
        try:
            async with running(hosted):
                started.set_result(None)
                await stop.wait()
        except Exception as error:
            if not started.done():
                started.set_exception(error)
            else:
                logger.error("the lifespan of server %r failed", hosted.name, exc_info=error)
        finally:
            started.cancel()
            self._lifespans.pop(hosted, None)


class _Lifespan(NamedTuple):
    stop: asyncio.Event
    task: asyncio.Task[None]
