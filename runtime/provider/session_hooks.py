"""`SessionHooks`: functions of the host program that are told of a session's life."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Literal

from ...actors.session.snapshot import Origin
from ..errors import ConfigurationError

__all__ = ["SessionEvent", "SessionHook", "SessionHooks"]

EventName = Literal["opened", "rehydrated", "passivated", "moved", "ended"]


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """What has happened to a session at this node."""

    name: EventName
    id: str
    tenant: str
    principal: str
    opened_by: Origin
    """"handshake" (2025-11-25 and earlier), or "handle"."""
    node: str
    """`node_id` of the runtime that says so."""
    reason: str | None = None
    """Why it left memory, in one or two words; None for `opened` and `rehydrated`."""


SessionHook = Callable[[SessionEvent], Awaitable[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHooks:
    """What `Runtime(hooks=...)` calls, sync or async, at the node where it happens. None: nothing.

    They are told afterwards, and nobody waits for them: see runtime/README.md, "A session's life".
    """

    opened: SessionHook | None = None
    """It is there: its first snapshot is saved."""
    rehydrated: SessionHook | None = None
    """It is back in memory, from the store."""
    passivated: SessionHook | None = None
    """It has left memory, and its record stays."""
    moved: SessionHook | None = None
    """It has left memory for another node."""
    ended: SessionHook | None = None
    """It is no more: its record is deleted."""

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: Something is no function.
        """
        for field in fields(self):
            hook = getattr(self, field.name)
            if hook is not None and not callable(hook):
                raise ConfigurationError(
                    f"the hook {field.name} is {hook!r:.80}; it must be a function of a SessionEvent, sync or async"
                )
