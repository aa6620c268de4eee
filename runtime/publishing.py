"""Publishing a change from outside a call: on the bus that the tools of a tenant's servers publish on."""

from __future__ import annotations

from mcp.shared.subscriptions import ServerEvent

from ..actors.session import NotificationRefused
from ..actors.session.notifications import checked_event
from ..actors.session.servers import Servers

__all__ = ["publish"]


async def publish(servers: Servers, event: ServerEvent, tenant: str | None) -> None:
    """Tell those of `tenant` who listen for `event`; None: all, where one server is everybody's.

    Raises:
        NotificationRefused: No event, or one that is too large; or `tenant` is missing, or means nothing here.
    """
    checked_event(event)
    if servers.one is not None and tenant is not None:
        # no-wrong-tenant: what is published on one server's bus is heard by all of its listeners.
        raise NotificationRefused(
            f"tenant {tenant!r} cannot be told alone: one server serves all tenants here, and whatever is published "
            "reaches all of them; leave `tenant` out, or host a function (tenant) -> server"
        )
    if servers.one is None and tenant is None:
        raise NotificationRefused("name the tenant whose listeners are to hear of it: publish(event, tenant=...)")
    bus = servers.bus(tenant or "")
    if bus is None:
        raise NotificationRefused("the server is no MCPServer: publish on the bus that it was made with")
    await bus.publish(event)
