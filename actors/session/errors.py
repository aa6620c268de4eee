"""What a session refuses."""

from __future__ import annotations

from mcp.server.mcpserver.exceptions import ToolError

from ...stores import Address, UnderstudyError
from ..errors import ActorError

__all__ = [
    "DuplicateRequest",
    "ForeignSession",
    "HandlerExit",
    "HostingError",
    "LimitExceeded",
    "NoSession",
    "NoStandingStream",
    "NotificationRefused",
    "ReadOnlyTurn",
    "RequestCancelled",
    "SessionError",
    "StateConflict",
    "StateError",
    "TurnOver",
]


class SessionError(UnderstudyError, ToolError):
    """A session refused what it was asked.

    A `ToolError`, so that the SDK passes the message on to the model when a tool lets it through.
    """


class ForeignSession(ActorError):
    """The session belongs to another principal, or was not opened in this era. To the client it does not exist."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"{address} does not answer to this principal", address)


class DuplicateRequest(SessionError):
    """A request carries the id of one that is still in flight."""

    def __init__(self, request_id: object) -> None:
        super().__init__(f"request id {request_id!r} is in flight already in this session; use a fresh id")


class HandlerExit(SessionError):
    """A handler tried to end the process (`sys.exit`, as command line parsers do). That is not its to end."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"The handler raised {type(error).__name__}, which ends programs, not calls")


class RequestCancelled(SessionError):
    """The client cancelled the request (or closed its connection, in the modern era)."""

    def __init__(self) -> None:
        super().__init__("Request cancelled")


class LimitExceeded(SessionError):
    """A tenant or a session has used as much as it may, or nobody can tell whether it has."""

    def __init__(
        self, message: str, *, limit: str, retry_after: float | None = None, unchecked: bool = False, ran: bool = False
    ) -> None:
        """`limit`: its name among the fields of `Limits`. `retry_after` in seconds. `unchecked`: it cannot be told now.
        `ran`: the call has run, and its result is what was too much.
        """
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after
        self.unchecked = unchecked
        self.ran = ran


class NoSession(SessionError, LookupError):
    """Code asked for the current session where there is none."""


class TurnOver(SessionError, RuntimeError):
    """A session object was used after its turn had ended; a change made now would be lost."""


class ReadOnlyTurn(SessionError):
    """State was changed in a turn that may only read."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} changed session.state, but it may only read: remove readOnlyHint from its annotations "
            "(or, for a prompt or resource, move the change into a tool)"
        )


class StateError(SessionError, ValueError):
    """`session.state` holds what cannot be saved: a type, a key, a size."""


class StateConflict(SessionError):
    """An update expected another state than there is. Nothing was changed: read it again, and decide anew.

    `keys`: whose values differ; empty where the state as a whole does.
    """

    def __init__(self, message: str, keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class NotificationRefused(SessionError, ValueError):
    """What was to be told to a client is nothing that a server may tell one, or is too large. Nothing was sent."""


class NoStandingStream(NotificationRefused):
    """The session was opened by handle, and so its client holds no stream outside of its calls. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__(
            "this session was opened by handle (2026-07-28), where no stream belongs to a session: publish the change "
            "instead (`runtime.publish(event)`, or in a tool `ctx.notify_resource_updated(uri)` and its like), and all "
            "who listen for it hear of it"
        )


class HostingError(UnderstudyError, TypeError):
    """The server cannot be hosted as it is; the message says what to change."""
