"""`Listening`: serves `subscriptions/listen` (2026-07-28)."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, cast

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import event_to_notification
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
)

from .tenant_bus import TenantBus

if TYPE_CHECKING:
    from .messages import Call

__all__ = ["Listening"]

MAX_STREAMS: Final = 1024
"""Streams of one tenant at one node."""
MAX_URIS: Final = 16_384
"""Resources that one stream may name."""
MAX_APART: Final = 1024
"""Events that may wait for a client before those that wait already are not put there twice."""


class Listening:
    """What the SDK's `ListenHandler` does, for a bus that says when events may have been missed.

    A stream is not ended because its client lags: beyond `MAX_APART` waiting events, one that waits already is not
    added again, so that at most that many and one of each that the client asked for wait. A client that takes nothing
    at all loses its connection.
    """

    def __init__(self, bus: TenantBus) -> None:
        self._bus = bus
        self._streams: set[_Stream] = set()

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream, until it is cancelled or `close` is called."""
        subscription = ctx.request_id
        if subscription is None:
            raise MCPError(INVALID_REQUEST, "subscriptions/listen requires a request id")
        if len(self._streams) >= MAX_STREAMS:
            raise MCPError(INTERNAL_ERROR, "Subscription limit reached")
        wanted = params.notifications
        uris = wanted.resource_subscriptions or []
        if len(uris) > MAX_URIS:
            raise MCPError(INVALID_PARAMS, f"one stream may name {MAX_URIS} resources, and this one names {len(uris)}")
        honoured = SubscriptionFilter(
            tools_list_changed=wanted.tools_list_changed or None,
            prompts_list_changed=wanted.prompts_list_changed or None,
            resources_list_changed=wanted.resources_list_changed or None,
            resource_subscriptions=list(uris) or None,
        )
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: subscription}
        call = _call_of(ctx)
        stream = _Stream(honoured, call.tenant.tenant, call.unheard)
        # Before the acknowledgement leaves: who has it is to hear whatever happens from then on.
        self._bus.add(stream)
        self._streams.add(stream)
        try:
            acknowledged = SubscriptionsAcknowledgedNotificationParams(notifications=honoured, _meta=meta)
            await ctx.session.send_notification(
                SubscriptionsAcknowledgedNotification(params=acknowledged), related_request_id=subscription
            )
            while (event := await stream.next()) is not None:
                await ctx.session.send_notification(event_to_notification(event, meta), related_request_id=subscription)
        finally:
            self._bus.remove(stream)
            self._streams.discard(stream)
        return SubscriptionsListenResult(_meta=meta)

    def close(self) -> None:
        """End all streams once what waits for them has been sent. Does not wait."""
        for stream in self._streams:
            stream.close()


def _call_of(ctx: ServerRequestContext[Any, Any]) -> Call:
    return cast("Any", ctx.session._request_outbound)._call  # pyright: ignore[reportPrivateUsage]


class _Stream:
    """The events that wait for one client: a `BusListener`."""

    __slots__ = ("_asked", "_closed", "_count", "_queue", "_waiter", "kinds", "tenant", "uris")

    def __init__(self, wanted: SubscriptionFilter, tenant: str = "", unheard: frozenset[str] = frozenset()) -> None:
        lists: list[tuple[object, type[ServerEvent]]] = [
            (wanted.tools_list_changed, ToolsListChanged),
            (wanted.prompts_list_changed, PromptsListChanged),
            (wanted.resources_list_changed, ResourcesListChanged),
        ]
        self.kinds = frozenset(kind for asked, kind in lists if asked)
        self.tenant = tenant
        self._asked = frozenset(wanted.resource_subscriptions or ())
        self.uris = self._asked - unheard
        self._queue: deque[ServerEvent] = deque()
        self._count: Counter[ServerEvent] = Counter()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def hear(self, event: ServerEvent) -> None:
        self._add(event, room=MAX_APART)

    def reread(self) -> None:
        for kind in self.kinds:
            self._add(kind(), room=0)  # pyright: ignore[reportCallIssue]
        for uri in self._asked:
            self._add(ResourceUpdated(uri), room=0)

    def _add(self, event: ServerEvent, *, room: int) -> None:
        if self._closed or (len(self._queue) >= room and self._count[event]):
            return
        self._queue.append(event)
        self._count[event] += 1
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> ServerEvent | None:
        """The next event; None after `close`, when none is left."""
        while not self._queue:
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._queue.popleft()
        if self._count[event] > 1:
            self._count[event] -= 1
        else:
            del self._count[event]
        return event
