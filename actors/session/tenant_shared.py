"""`TenantShared`: what the servers that a factory made for one tenant have in common."""

from __future__ import annotations

from mcp.server.request_state import RequestStateBoundary

from .listening import Listening
from .tenant_bus import TenantBus

__all__ = ["TenantShared"]


class TenantShared:
    """What the servers that a factory made for one tenant have in common, because a call may meet any of them.

    `bus` carries list changes and resource updates to every `subscriptions/listen` stream of the tenant, and to its
    handshake-era sessions. `boundaries` seals `requestState` (by server name), so that a round begun at one session's
    server can end at another's.
    """

    __slots__ = ("__weakref__", "boundaries", "bus", "listen")

    def __init__(self, bus: TenantBus | None = None) -> None:
        self.bus = bus if bus is not None else TenantBus()
        self.listen = Listening(self.bus)
        self.boundaries: dict[str, RequestStateBoundary] = {}
