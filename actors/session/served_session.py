"""`ServedSession`: which MCP server a session's calls run on, and what they see of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..actor import Cell
from .outside_calls import OutsideCalls
from .relay import message_of
from .snapshot import SessionSnapshot
from .surface import Surface
from .tenant import TenantContext

if TYPE_CHECKING:
    from .hosting import HostedServer
    from .session_kind import SessionKind

__all__ = ["ServedSession"]


class ServedSession(OutsideCalls):
    """A session whose server may be another with each call: the plan or the scopes of its credential have changed, or
    its tenant has.

    A part of `SessionActor`, as `OutsideCalls` is.
    """

    __slots__ = ("_hosted", "_surface")

    def __init__(self, kind: SessionKind, cell: Cell, snapshot: SessionSnapshot) -> None:
        super().__init__(kind, cell, snapshot)
        self._hosted: HostedServer | None = None
        self._surface: Surface | None = None
        """What the last call could see."""

    def _fits(self, hosted: HostedServer, tenant: TenantContext) -> bool:
        return hosted.made_for is None or self._kind.servers.fits(hosted, tenant)

    async def _sees(self, surface: Surface | None, *, anew: bool) -> None:
        """The session's calls come with another credential than before, or to a server that was made `anew`."""
        if (self._surface is None or surface is self._surface) and not anew:
            self._surface = surface
            return
        self._surface = surface
        if self._kind.relay is not None:
            self._kind.relay.subscribed(self._cell.address, self.snap.subscriptions, self._unheard, anew=True)
        for event in self._hosted.lists if self._hosted is not None else ():
            await self.notify(message_of(event)["method"], None)

    @property
    def _unheard(self) -> Callable[[str], bool] | None:
        """Tells the resources of whose changes this session must not hear; None: it may hear of all."""
        hosted, surface = self._hosted, self._surface
        if hosted is None or surface is None or not hosted.filtered:
            return None
        return partial(hosted.hiding.hides_uri, surface)

    async def _host(self, tenant: TenantContext) -> HostedServer:
        """The session's server, made if there is none that fits; one that does not is retired."""
        servers = self._kind.servers
        hosted = await servers.for_session(tenant)
        known = self._hosted
        if known is None:
            self._hosted = hosted
        elif known is not hosted:
            if self._fits(known, tenant):
                # Another turn has made one meanwhile.
                servers.release(hosted)
            else:
                self._hosted = hosted
                servers.release(known)
        return self._hosted or hosted

    def _release_server(self) -> None:
        if self._hosted is not None:
            self._kind.servers.release(self._hosted)
