"""`Relay`: what a tool publishes on its tenant's bus reaches the sessions of the handshake era too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final

from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

from ...stores import Address
from .tenant_bus import ALL_LISTS
from .tenant_shared import TenantShared

if TYPE_CHECKING:
    from .servers import Servers
    from .session_kind import StandaloneStreams
    from .snapshot import SessionSnapshot

__all__ = ["Relay", "message_of", "reread_messages"]

logger = logging.getLogger(__name__)

SWEEP: Final = 60.0
"""Seconds between two looks whose stream is gone, while anybody has one."""

_METHODS: Final[dict[type[ServerEvent], str]] = {
    ToolsListChanged: "notifications/tools/list_changed",
    PromptsListChanged: "notifications/prompts/list_changed",
    ResourcesListChanged: "notifications/resources/list_changed",
}
_ALL_KINDS: Final[frozenset[type[ServerEvent]]] = frozenset(_METHODS)


def message_of(event: ServerEvent) -> dict[str, Any]:
    """The notification of the handshake era that says the same."""
    if isinstance(event, ResourceUpdated):
        return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": event.uri}}
    return {"jsonrpc": "2.0", "method": _METHODS[type(event)]}


def reread_messages(subscriptions: Iterable[str], *, lists: bool = True) -> Iterator[dict[str, Any]]:
    """What tells a client to read everything again: its subscriptions and, with `lists`, all lists."""
    for uri in subscriptions:
        yield message_of(ResourceUpdated(uri))
    if lists:
        # An `MCPServer` declares all three.
        yield from map(message_of, ALL_LISTS)


class Relay:
    """At the owner of sessions. Knows those of them that have a standalone stream here, and only those.

    Per such session some entries in its tenant's bus; no task, no timer. One whose stream is gone is dropped when
    something is to be sent to it, or by a look each `SWEEP` seconds, which nobody takes where there is none.
    """

    def __init__(self, servers: Servers, streams: StandaloneStreams) -> None:
        self.servers = servers
        self._streams = streams
        self._sessions: dict[Address, _Relayed] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._apart = TenantShared()
        self._latest: tuple[ServerEvent, dict[str, Any]] | None = None
        self.relayed = 0

    def opened(
        self, address: Address, snapshot: SessionSnapshot, *, continued: bool, unheard: AbstractSet[str] = frozenset()
    ) -> bool:
        """The client holds the session's standalone stream, here. Idempotent.

        `continued`: it had one before. Where this node has not listened for the session since, it is told to read
        again what may have changed; a client that never had one, only what it is subscribed to. Whether it was.

        `unheard`: those of its subscriptions whose changes it must not hear of. It is told to read them again as
        anything else that it asked for: so it would be if they were nowhere.
        """
        asked = frozenset(snapshot.subscriptions)
        known = self._sessions.get(address)
        if known is not None:
            if known.shared is self._apart:
                return False
            if known.asked == asked:
                self._change(known, asked, asked - unheard)
                # Whatever was published since went to its stream, or has removed it from here.
                return False
            # It was elsewhere in the meantime.
            self._drop(known)
        shared = self.servers.shared_by(snapshot.tenant)
        if shared is None:
            # Nothing is published where it could be heard; only what understudy itself has to say.
            apart = self._sessions[address] = _Relayed(
                self, address, snapshot.tenant, self._apart, frozenset(), frozenset()
            )
            self._apart.bus.add(apart)
            self._look_later()
            return False
        session = self._sessions[address] = _Relayed(self, address, snapshot.tenant, shared, asked, asked - unheard)
        shared.bus.add(session)
        for message in reread_messages(snapshot.subscriptions, lists=continued):
            self._streams.publish(address, message)
        self._look_later()
        return True

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    async def tell_lists(self, tenant: str | None) -> None:
        """Tell the sessions of `tenant`, or all, that their lists have changed, where that is published nowhere."""
        one = self.servers.one
        if one is not None and len(self._apart.bus):
            await self._apart.bus.deliver_lists(tenant, one.lists)

    def subscribed(
        self,
        address: Address,
        subscriptions: Iterable[str],
        unheard: Callable[[str], bool] | None = None,
        *,
        anew: bool = False,
    ) -> None:
        """The session's subscriptions are these now. Nothing happens where it has no standalone stream here.

        `unheard` tells of which it must not hear; it is asked about new ones, or, `anew`, about all.
        """
        session = self._sessions.get(address)
        if session is None or session.shared is self._apart:
            return
        asked = frozenset(subscriptions)
        if unheard is None:
            heard = asked
        else:
            known = frozenset[str]() if anew else session.asked
            heard = frozenset(uri for uri in asked if (uri in session.uris if uri in known else not unheard(uri)))
        self._change(session, asked, heard)

    def _change(self, session: _Relayed, asked: frozenset[str], heard: frozenset[str]) -> None:
        before, session.asked, session.uris = session.uris, asked, heard
        session.shared.bus.change(session, before)

    def left(self, address: Address) -> None:
        """Nobody comes back to the session's standalone stream here. Idempotent."""
        session = self._sessions.get(address)
        if session is not None:
            self._drop(session)

    def close(self) -> None:
        """Listen for nobody any more."""
        for session in list(self._sessions.values()):
            self._drop(session)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self, session: _Relayed) -> None:
        session.shared.bus.remove(session)
        if self._sessions.get(session.address) is session:
            del self._sessions[session.address]

    def _sweep(self) -> None:
        self._timer = None
        for session in list(self._sessions.values()):
            if self._streams.standalone(session.address) is None:
                self._drop(session)
        if self._sessions:
            self._timer = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def send(self, session: _Relayed, event: ServerEvent) -> None:
        """Put `event` on the session's standalone stream; without one the session is not relayed to any more."""
        latest = self._latest
        if latest is None or latest[0] is not event:
            latest = self._latest = (event, message_of(event))
        if self._sessions.get(session.address) is not session:
            return
        if self._streams.publish(session.address, latest[1]):
            self.relayed += 1
        else:
            self._drop(session)

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {"relay_sessions": len(self._sessions), "relay_sent_total": self.relayed}


class _Relayed:
    """One session: a `BusListener`."""

    __slots__ = ("_relay", "address", "asked", "shared", "tenant", "uris")

    def __init__(
        self,
        relay: Relay,
        address: Address,
        tenant: str,
        shared: TenantShared,
        asked: frozenset[str],
        uris: frozenset[str],
    ) -> None:
        self._relay = relay
        self.address = address
        self.tenant = tenant
        self.asked = asked
        """All that it is subscribed to; `uris` are those of whose changes it hears."""
        self.shared = shared
        """Held, so that the tenant's bus stays while nobody else has it."""
        self.uris = uris

    @property
    def kinds(self) -> frozenset[type[ServerEvent]]:
        return _ALL_KINDS

    def hear(self, event: ServerEvent) -> None:
        self._relay.send(self, event)

    def reread(self) -> None:
        for uri in self.asked:
            self._relay.send(self, ResourceUpdated(uri))
        for event in ALL_LISTS:
            self._relay.send(self, event)
