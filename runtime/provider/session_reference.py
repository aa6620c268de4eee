"""`SessionReference`: a session as code outside of its calls sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ...actors.session.notifications import Notifier, checked_notification

__all__ = ["SessionReference"]


class SessionReference(Notifier):
    """Names a session; finding it, at whatever node, is left to each of its methods. Made by `Runtime.session`.

    To hold one costs nothing and keeps nothing alive.
    """

    __slots__ = ("_tell", "id", "tenant")

    def __init__(
        self,
        id: str,
        tenant: str | None,
        tell: Callable[[str, str, dict[str, Any] | None, str | None], Awaitable[None]],
    ) -> None:
        self.id = id
        """`Mcp-Session-Id`, or the state handle."""
        self.tenant = tenant
        """Whose session it must be; None: anybody's."""
        self._tell = tell

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Tell the session's client something, wherever the session is and wherever its client listens.

        Returns when the notification is on the session's standalone stream at the node that owns it (woken if it slept,
        which is a use of the session) and in the event log, if that is within reach; a client that is not connected
        gets it when it comes. At most once: what may have been sent is not sent again. Notifications of one caller that
        awaits each arrive in order.

        Cancelled, it may or may not have been sent.

        Raises:
            SessionNotFound: There is no such session, or it is another tenant's.
            NotificationRefused: No notification that a server may send, its params are not JSON, or too large; or the
                session was opened by handle (`NoStandingStream`). Nothing was sent.
            SessionUnavailable: Its node or the store cannot be reached, or takes no more for now;
                `outcome_unknown` tells whether it may have been sent.
            NotStarted: The runtime is not running.
        """
        await self._tell(self.id, method, checked_notification(method, params), self.tenant)

    def __repr__(self) -> str:
        return f"<session {self.id}>"
