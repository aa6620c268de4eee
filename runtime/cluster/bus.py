"""`BusHub`: what one node publishes to its listeners, every node's listeners hear, or are told to read again.

A message is `[1, origin, tenant, name, uri, number]` in msgpack. Versions before numbers leave the last out, and read
over what stands behind the URI.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from nats.errors import Error as NatsError

from ...actors.packing import pack, unpack
from ...actors.session.tenant_bus import TenantBus
from .bus_numbers import BusNumbers
from .nats_api import subscribe

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["BusHub"]

logger = logging.getLogger("understudy.cluster")

_PLAIN: Final[dict[str, ServerEvent]] = {
    "tools": ToolsListChanged(),
    "prompts": PromptsListChanged(),
    "resources": ResourcesListChanged(),
}
_NAMES: Final = {type(event): name for name, event in _PLAIN.items()}
_UPDATED: Final = "updated"
_GOODBYE: Final = "bye"
MAX_URI: Final = 64 * 1024
PENDING_MESSAGES: Final = 64 * 1024
PENDING_BYTES: Final = 32 * 2**20
"""What nats-py keeps for us before it drops; that it has dropped shows in the numbers."""
TIMEOUT: Final = 2.0
"""Seconds that NATS may take to take a publication, or to answer a flush."""
REREADS_APART: Final = 1.0
"""Seconds from one time that all listeners are told to read again to the next: gaps seldom come alone."""


class BusHub:
    """All buses of one node: one subject, one subscription, one task, however many tenants there are."""

    def __init__(self) -> None:
        self._buses: WeakValueDictionary[str, TenantBus] = WeakValueDictionary()
        self._connection: Client | None = None
        self._subscription: Subscription | None = None
        self._subject = ""
        self._numbers = BusNumbers()
        self._gap = asyncio.Event()
        self.origin = ""
        """What this node's publications are numbered under; told in its lease."""
        self.last = 0
        """The number of the last of them."""
        self.published = 0
        self.heard = 0
        self.failed = 0
        self.gaps = 0
        self.rereads = 0

    def for_tenant(self, tenant: str) -> TenantBus:
        """The bus of one tenant; the same object as long as anybody has it."""
        bus = self._buses.get(tenant)
        if bus is None:
            bus = self._buses[tenant] = TenantBus(partial(self.tell, tenant))
        return bus

    # Being attached

    async def attach(self, connection: Client, subject: str, told: Mapping[str, int], *, node: str = "") -> None:
        """From now on the other nodes hear of it, and this one of them. `told`: as `BusNumbers` takes it; `node`: for
        whoever reads the others' logs.
        """
        self.origin, self.last = f"{node}.{secrets.token_hex(8)}", 0
        self._numbers = BusNumbers(told)
        self._gap = asyncio.Event()
        self._connection = connection
        self._subject = subject
        self._subscription = await subscribe(
            connection,
            subject,
            self._on_message,
            pending_msgs_limit=PENDING_MESSAGES,
            pending_bytes_limit=PENDING_BYTES,
        )
        try:
            # Who is told that he listens is to hear what happens from then on: NATS must know by then.
            await connection.flush(int(TIMEOUT))
        except NatsError as error:
            logger.warning("NATS does not answer; changes at other nodes are heard when it does: %r", error)

    async def detach(self) -> None:
        """Only this node hears of it. The others are told that nothing more comes. Idempotent, bounded."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self.last += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                if self._subscription is not None:
                    await self._subscription.unsubscribe()
                await connection.publish(self._subject, pack([1, self.origin, "", _GOODBYE, "", self.last]))
        except Exception as error:
            logger.debug("no goodbye on the bus: %r", error)

    # Publishing

    async def tell(self, tenant: str, event: ServerEvent) -> None:
        """Publish to the other nodes. What cannot be sent is logged: listeners there are told to read again."""
        connection = self._connection
        if connection is None:
            return
        self.last += 1
        name = _NAMES.get(type(event), _UPDATED)
        uri = event.uri if isinstance(event, ResourceUpdated) else ""
        packed = pack([1, self.origin, tenant, name, uri, self.last])
        try:
            async with asyncio.timeout(TIMEOUT):
                await connection.publish(self._subject, packed)
            self.published += 1
        except Exception as error:
            self.failed += 1
            logger.warning("other nodes do not hear of a change (%s) until they look at its number: %r", name, error)

    # Hearing

    async def _on_message(self, message: Msg) -> None:
        try:
            fields: Any = unpack(message.data)
        except ValueError:
            return
        match fields:
            case [1, str(origin), str(tenant), str(name), str(uri), *more] if origin != self.origin:
                pass
            case _:
                return
        number = more[0] if more and type(more[0]) is int and more[0] > 0 else None
        if name == _GOODBYE:
            if number is not None and self._numbers.goodbye(origin, number):
                self._missed(f"{origin} had published more before it left")
            return
        if number is not None and self._numbers.heard(origin, number):
            self._missed(f"a number of {origin} was skipped")
        event = ResourceUpdated(uri) if name == _UPDATED else _PLAIN.get(name)
        if event is None:
            # A later version's; nobody here can have asked for it.
            return
        if len(uri) > MAX_URI:
            if number is not None:
                self._missed(f"{origin} has published too long a name")
            return
        bus = self._buses.get(tenant)
        if bus is not None:
            self.heard += 1
            await bus.deliver(event)

    # What was missed

    def reconnected(self) -> None:
        """The connection was lost, and is there again."""
        self._missed("the connection to NATS was lost")

    def look(self, told: Mapping[str, int]) -> None:
        """See whether everything has come that the leases of the living nodes tell of; once per renewal."""
        others = {origin: last for origin, last in told.items() if origin and origin != self.origin}
        for origin in self._numbers.look(others):
            self._missed(f"{origin} has published more than has come")

    def _missed(self, why: str) -> None:
        self.gaps += 1
        if not self._gap.is_set():
            logger.info("changes at other nodes may have been missed (%s): all listeners are told to read again", why)
            self._gap.set()

    async def watch_forever(self, told: Callable[[], Mapping[str, int]], interval: float) -> None:
        """`look` each `interval` seconds at what `told` says, and tell listeners of gaps. Until cancelled."""
        due = monotonic() + interval
        free = 0.0
        while True:
            try:
                async with asyncio.timeout(max(due - monotonic(), 0.0)):
                    await self._gap.wait()
            except TimeoutError:
                due = monotonic() + interval
                self.look(told())
            if self._gap.is_set():
                await asyncio.sleep(max(free - monotonic(), 0.0))
                free = monotonic() + REREADS_APART
                self._gap.clear()
                self.rereads += 1
                for bus in list(self._buses.values()):
                    await bus.reread()
