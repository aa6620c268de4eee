"""What a server may tell its client outside of any call, and the words in which authors say it."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

import pydantic_core
from mcp.shared.subscriptions import ResourceUpdated, ServerEvent
from mcp_types.methods import SERVER_NOTIFICATIONS, SPEC_CLIENT_NOTIFICATION_METHODS, parse_server_notification
from mcp_types.version import LATEST_HANDSHAKE_VERSION
from pydantic import ValidationError

from .errors import NotificationRefused

__all__ = ["MAX_NOTIFICATION", "MAX_URI", "Notifier", "checked_event", "checked_notification"]

MAX_NOTIFICATION: Final = 256 * 1024
"""Bytes of one notification as JSON."""
MAX_URI: Final = 64 * 1024
"""Characters of the URI of a published update."""
_PREFIX: Final = "notifications/"
_OF_A_REQUEST: Final = frozenset(("notifications/cancelled", "notifications/progress"))
_HANDSHAKE: Final = frozenset(method for method, version in SERVER_NOTIFICATIONS if version == LATEST_HANDSHAKE_VERSION)
_SERVER: Final = frozenset(method for method, _ in SERVER_NOTIFICATIONS)


def checked_notification(method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """A copy of `params` as JSON has them, if a server may send this to its client outside of any call.

    What the protocol knows must have its shape; other names that begin with `notifications/` are an extension's.

    Raises:
        NotificationRefused: The message says what to do instead.
    """
    if not isinstance(cast("object", method), str) or not method.startswith(_PREFIX):
        known = ", ".join(sorted(_HANDSHAKE - _OF_A_REQUEST))
        raise NotificationRefused(f"{method!r:.80} is no notification: one of {known}, or an extension's own")
    if method in _OF_A_REQUEST:
        raise NotificationRefused(
            f"{method!r} belongs to the stream of a request: a tool sends it by its own context, and nobody else can"
        )
    if method not in _HANDSHAKE and (method in _SERVER or method in SPEC_CLIENT_NOTIFICATION_METHODS):
        raise NotificationRefused(f"{method!r} is nothing that a server tells the client of a session")
    copy = _as_json(method, params)
    if method in _HANDSHAKE:
        try:
            parse_server_notification(method, LATEST_HANDSHAKE_VERSION, copy)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in wrong["loc"])
            raise NotificationRefused(f"the params of {method!r} will not do: {where}: {wrong['msg']}") from None
    return copy


def checked_event(event: ServerEvent) -> ServerEvent:
    """`event`, if it is one that can be published.

    Raises:
        NotificationRefused: It is none of the SDK's, or its URI is no text or too long.
    """
    if not isinstance(cast("object", event), ServerEvent):
        names = ", ".join(kind.__name__ for kind in get_args(ServerEvent))
        raise NotificationRefused(f"{event!r:.80} is no event: one of {names}, of mcp.shared.subscriptions")
    if isinstance(event, ResourceUpdated):
        checked_notification("notifications/resources/updated", {"uri": event.uri})
        if len(event.uri) > MAX_URI:
            raise NotificationRefused(f"a URI of {len(event.uri)} characters, but at most {MAX_URI} can be published")
    return event


def _as_json(method: str, params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if params is None:
        return None
    if not isinstance(cast("object", params), Mapping):
        raise NotificationRefused(
            f"the params of {method!r} are of type {type(params).__name__}, but must be a mapping"
        )
    try:
        packed = json.dumps(dict(params), allow_nan=False, ensure_ascii=False).encode()
        # As strict as whoever reads it: nothing too deep, no number too long.
        copy: dict[str, Any] = pydantic_core.from_json(packed, allow_inf_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotificationRefused(f"the params of {method!r} are nothing that JSON can carry: {error}") from None
    if len(packed) > MAX_NOTIFICATION:
        raise NotificationRefused(
            f"the params of {method!r} are {len(packed)} bytes of JSON, but at most {MAX_NOTIFICATION} may be sent: "
            "name a resource that holds the rest"
        )
    return copy


class Notifier:
    """Whoever can tell a session's client something outside of any call. The names are those of the SDK's `Context`."""

    __slots__ = ()

    @abstractmethod
    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send the client a notification on the session's standalone stream."""

    async def notify_resource_updated(self, uri: str) -> None:
        """Tell the client that a resource has changed, whether or not it has subscribed to it. Raises as `notify`."""
        await self.notify("notifications/resources/updated", {"uri": uri})

    async def notify_resources_changed(self) -> None:
        """Tell the client to list the resources again. Raises as `notify`."""
        await self.notify("notifications/resources/list_changed")

    async def notify_tools_changed(self) -> None:
        """Tell the client to list the tools again. Raises as `notify`."""
        await self.notify("notifications/tools/list_changed")

    async def notify_prompts_changed(self) -> None:
        """Tell the client to list the prompts again. Raises as `notify`."""
        await self.notify("notifications/prompts/list_changed")
