"""`Surfaces`: finds the surface of each credential, and asks the host program which tools that has."""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from ..foreign_errors import ends_the_task
from .errors import HostingError
from .surface import SURFACE, Surface, checked_names
from .tenant import TenantContext
from .tenant_changes import TenantChanges

if TYPE_CHECKING:
    from .messages import Call

__all__ = ["Surfaces", "ToolsFor"]

ToolsFor = Callable[[TenantContext], Iterable[str] | Awaitable[Iterable[str]]]
"""The names of the tools that a credential may see, in which `*` stands for anything; `{"*"}` is all of them."""

MOST: Final = 4096
"""Credentials whose surface is known; beyond it the least recently used are asked for anew."""


class Surfaces:
    """What it knows of a credential depends on its tenant, principal, plan and scopes, and on nothing else of it."""

    def __init__(self, tools_for: ToolsFor | None, changes: TenantChanges, *, timeout: float) -> None:
        """`timeout`: seconds that `tools_for` may take."""
        self._tools_for = tools_for
        self._changes = changes
        self._timeout = timeout
        self._known: OrderedDict[Any, tuple[Surface, int]] = OrderedDict()
        self._same: dict[int, tuple[TenantContext, Surface, int]] = {}
        self._equal: WeakValueDictionary[Any, Surface] = WeakValueDictionary()
        self._making: dict[Any, asyncio.Event] = {}
        self.active = tools_for is not None
        """Whether a surface matters to any call."""

    @property
    def by_name(self) -> bool:
        """Whether tools are chosen by their names, so that every server is concerned."""
        return self._tools_for is not None

    def enter(self, call: Call) -> bool:
        """Have `call`, and the rest of the present task, see what its credential allows, if that is known.

        If not, nothing is changed, and `look_up` is to be awaited.
        """
        tenant = call.tenant
        same = self._same.get(id(tenant))
        if same is None or same[0] is not tenant or same[2] != self._changes.latest:
            return False
        call.surface = same[1]
        SURFACE.set(same[1])
        return True

    async def look_up(self, call: Call) -> None:
        """Find out what the credential of `call` allows, and enter.

        Raises:
            HostingError: `tools_for` failed, or took too long.
        """
        made = self._changes.latest
        surface = call.surface = await self.of(call.tenant)
        SURFACE.set(surface)
        # A resolver that remembers gives the same object each time, which is found sooner than an equal one.
        if len(self._same) >= MOST:
            self._same.clear()
        self._same[id(call.tenant)] = (call.tenant, surface, made)

    async def of(self, tenant: TenantContext) -> Surface:
        """The surface of `tenant`. Waits only where `tools_for` is asked, which is once for equal credentials.

        Raises:
            HostingError: `tools_for` failed, or took too long.
        """
        key = tenant.surface if self._tools_for is not None else (tenant.plan, tenant.scopes)
        while True:
            known = self._known.get(key)
            if known is not None and not self._changes.outdated(tenant.tenant, known[1]):
                self._known.move_to_end(key)
                return known[0]
            making = self._making.get(key)
            if making is None:
                break
            await making.wait()
        made = self._changes.latest
        if self._tools_for is None:
            return self._keep(key, tenant, None, made)
        making = self._making[key] = asyncio.Event()
        try:
            return self._keep(key, tenant, await self._names(self._tools_for, tenant), made)
        finally:
            del self._making[key]
            making.set()

    def _keep(self, key: Any, tenant: TenantContext, names: frozenset[str] | None, made: int) -> Surface:
        surface = Surface(tenant.plan, tenant.scopes, names)
        surface = self._equal.setdefault((tenant.plan, tenant.scopes, names), surface)
        self._known[key] = (surface, made)
        self._known.move_to_end(key)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return surface

    async def _names(self, tools_for: ToolsFor, tenant: TenantContext) -> frozenset[str]:
        limit = asyncio.timeout(self._timeout)
        # It is the host program's, and sees everything.
        token = SURFACE.set(None)
        try:
            async with limit:
                names = tools_for(tenant)
                return checked_names(await names if inspect.isawaitable(names) else names)
        except HostingError:
            raise
        except BaseException as error:
            if ends_the_task(error):
                raise
            if limit.expired():
                raise HostingError(f"tools_for took longer than {self._timeout:g} s") from None
            # Its text may tell of the inside of the server; the client gets none of it.
            raise HostingError(f"tools_for raised {error!r}") from error
        finally:
            SURFACE.reset(token)
