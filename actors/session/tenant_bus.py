"""`TenantBus`: carries the list changes and resource updates of one tenant to those who asked for them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import anyio.lowlevel
from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

__all__ = ["ALL_LISTS", "BusListener", "TenantBus"]

logger = logging.getLogger(__name__)

Kind = type[ServerEvent]

ALL_LISTS: Final[tuple[ServerEvent, ...]] = (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged())
BREATH: Final = 128
"""Listeners served before others on the event loop have their turn."""


class BusListener(Protocol):
    """Known by its identity. What it asks for may change only by `TenantBus.change`."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...

    @property
    def kinds(self) -> frozenset[Kind]:
        """List changes that it wants to hear of."""
        ...

    @property
    def uris(self) -> AbstractSet[str]:
        """Resources whose updates it wants to hear of."""
        ...

    def hear(self, event: ServerEvent) -> None:
        """One of them. On the event loop; must be quick. May come once more after `TenantBus.remove`."""
        ...

    def reread(self) -> None:
        """Changes may have been missed: whatever it asked for is to be read again. As `hear`."""
        ...


class TenantBus:
    """A `SubscriptionBus`. To publish costs what the listeners concerned cost, however many others there are.

    Events are level triggers: one says that something has changed since it was last read, not how often.
    """

    __slots__ = ("__weakref__", "_by_kinds", "_by_uri", "_everything", "_tell")

    def __init__(self, tell: Callable[[ServerEvent], Awaitable[None]] | None = None) -> None:
        """`tell` publishes to the other nodes, whose events come by `deliver`; it must not raise."""
        self._tell = tell
        self._by_kinds: dict[frozenset[Kind], dict[BusListener, None]] = {}
        self._by_uri: dict[str, dict[BusListener, None]] = {}
        self._everything: dict[object, Callable[[ServerEvent], None]] = {}

    # Listening

    def add(self, listener: BusListener) -> None:
        """From here on `listener` hears what it asks for."""
        self._by_kinds.setdefault(listener.kinds, {})[listener] = None
        for uri in listener.uris:
            self._by_uri.setdefault(uri, {})[listener] = None

    def remove(self, listener: BusListener) -> None:
        """Idempotent."""
        group = self._by_kinds.get(listener.kinds)
        if group is None or listener not in group:
            return
        del group[listener]
        if not group:
            del self._by_kinds[listener.kinds]
        self._forget(listener, listener.uris)

    def change(self, listener: BusListener, before: AbstractSet[str]) -> None:
        """`listener`, which is here, asks for other resources than `before`."""
        self._forget(listener, before - listener.uris)
        for uri in listener.uris - before:
            self._by_uri.setdefault(uri, {})[listener] = None

    def _forget(self, listener: BusListener, uris: AbstractSet[str]) -> None:
        for uri in uris:
            concerned = self._by_uri.get(uri)
            if concerned is not None:
                concerned.pop(listener, None)
                if not concerned:
                    del self._by_uri[uri]

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """See `SubscriptionBus.subscribe`. Who listens so hears everything; of `reread`, all list changes."""
        token = object()
        self._everything[token] = listener

        def unsubscribe() -> None:
            self._everything.pop(token, None)

        return unsubscribe

    # Publishing

    async def publish(self, event: ServerEvent) -> None:
        """See `SubscriptionBus.publish`. Cancelled, some listeners may have heard of it and others not."""
        if self._tell is not None:
            await self._tell(event)
        await self.deliver(event)

    async def deliver(self, event: ServerEvent) -> None:
        """Have the listeners here hear of it. Lets others on the event loop have their turn."""
        for number, hear in enumerate(list(self._concerned(event)), 1):
            self._call(hear, event)
            if number % BREATH == 0:
                await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()

    def _concerned(self, event: ServerEvent) -> Iterator[Callable[[ServerEvent], None]]:
        yield from self._everything.values()
        if isinstance(event, ResourceUpdated):
            for listener in self._by_uri.get(event.uri, ()):
                yield listener.hear
            return
        for kinds, listeners in self._by_kinds.items():
            if type(event) in kinds:
                for listener in listeners:
                    yield listener.hear

    async def deliver_lists(self, tenant: str | None, events: Iterable[ServerEvent] = ALL_LISTS) -> None:
        """Have the listeners here of one tenant, or of all, hear that lists have changed. Lets others take turns."""
        for listeners in list(self._by_kinds.values()):
            for listener in list(listeners):
                if tenant is None or listener.tenant == tenant:
                    for event in events:
                        if type(event) in listener.kinds:
                            self._call(listener.hear, event)
            await anyio.lowlevel.checkpoint()

    async def reread(self) -> None:
        """Tell all listeners here that they may have missed something. Lets others have their turn."""
        for hear in list(self._everything.values()):
            for event in ALL_LISTS:
                self._call(hear, event)
        for listener in [listener for group in self._by_kinds.values() for listener in group]:
            self._call(listener.reread)
            await anyio.lowlevel.checkpoint()

    def _call(self, listener: Callable[..., None], *event: ServerEvent) -> None:
        try:
            listener(*event)
        except Exception:
            # The others must hear of it all the same, and the call that publishes is not to blame.
            logger.exception("a listener of a subscription bus failed")

    def __len__(self) -> int:
        """How many listen."""
        return len(self._everything) + sum(map(len, self._by_kinds.values()))

    def __bool__(self) -> bool:
        return True
