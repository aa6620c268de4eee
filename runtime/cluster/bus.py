"""`ClusterBus`: what one node publishes to `subscriptions/listen`, every node's listeners hear."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from mcp.server.subscriptions import InMemorySubscriptionBus, SubscriptionBus
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from nats.errors import Error as NatsError

from ...actors.packing import pack, unpack
from .nats_api import subscribe

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["BusHub"]

logger = logging.getLogger("understudy.cluster")

_PLAIN: Final[dict[str, ServerEvent]] = {
    "tools": ToolsListChanged(),
    "prompts": PromptsListChanged(),
    "resources": ResourcesListChanged(),
}
_NAMES: Final = {type(event): name for name, event in _PLAIN.items()}
_UPDATED: Final = "updated"
MAX_URI: Final = 64 * 1024
FLUSH_TIMEOUT: Final = 2


class BusHub:
    """All buses of one node: one subject, one subscription, however many tenants there are."""

    def __init__(self) -> None:
        self._origin = secrets.token_hex(8)
        self._buses: WeakValueDictionary[str, _TenantBus] = WeakValueDictionary()
        self._connection: Client | None = None
        self._subject = ""
        self.published = 0
        self.heard = 0
        self.failed = 0

    def for_tenant(self, tenant: str) -> SubscriptionBus:
        """The bus of one tenant; the same object as long as anybody has it."""
        bus = self._buses.get(tenant)
        if bus is None:
            bus = self._buses[tenant] = _TenantBus(self, tenant)
        return bus

    async def attach(self, connection: Client, subject: str) -> None:
        """From now on the other nodes hear of it, and this one of them."""
        self._connection = connection
        self._subject = subject
        await subscribe(connection, subject, self._on_message)
        try:
            # Who is told that he listens is to hear what happens from then on: NATS must know by then.
            await connection.flush(FLUSH_TIMEOUT)
        except NatsError as error:
            logger.warning("NATS does not answer; changes at other nodes are heard when it does: %r", error)

    def detach(self) -> None:
        """Only this node hears of it."""
        self._connection = None

    async def tell(self, tenant: str, event: ServerEvent) -> None:
        """Publish to the other nodes. What cannot be sent is logged: a listener there misses it."""
        connection = self._connection
        if connection is None:
            return
        name = _NAMES.get(type(event), _UPDATED)
        uri = event.uri if isinstance(event, ResourceUpdated) else ""
        try:
            await connection.publish(self._subject, pack([1, self._origin, tenant, name, uri]))
            self.published += 1
        except Exception as error:
            self.failed += 1
            logger.warning("other nodes do not hear of a change (%s): %r", name, error)

    async def _on_message(self, message: Msg) -> None:
        event = self._event(message.data)
        if event is None:
            return
        tenant, change = event
        bus = self._buses.get(tenant)
        if bus is not None:
            self.heard += 1
            await bus.deliver(change)

    def _event(self, packed: bytes) -> tuple[str, ServerEvent] | None:
        try:
            fields: Any = unpack(packed)
        except ValueError:
            return None
        match fields:
            case [1, str(origin), str(tenant), str(name), str(uri), *_] if origin != self._origin:
                if name == _UPDATED:
                    return (tenant, ResourceUpdated(uri)) if len(uri) <= MAX_URI else None
                plain = _PLAIN.get(name)
                return (tenant, plain) if plain is not None else None
            case _:
                return None


class _TenantBus:
    """A `SubscriptionBus`: listeners are local, events come from everywhere."""

    def __init__(self, hub: BusHub, tenant: str) -> None:
        self._hub = hub
        self._tenant = tenant
        self._local = InMemorySubscriptionBus()

    async def publish(self, event: ServerEvent) -> None:
        """See `SubscriptionBus.publish`."""
        await self._hub.tell(self._tenant, event)
        await self._local.publish(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """See `SubscriptionBus.subscribe`."""
        return self._local.subscribe(listener)

    async def deliver(self, event: ServerEvent) -> None:
        """An event from another node."""
        await self._local.publish(event)
