"""`StandaloneStreams`: the seam behind which sessions send what belongs to no request."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from ...stores import Address

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["Listened", "StandaloneStreams"]


class Listened(Enum):
    """What a session knows of its standalone stream when that is not in memory."""

    NEVER = "never"
    """No client has asked for it since the session began, which was here."""
    PERHAPS = "perhaps"
    """A client may come back to it, and the log may have it."""
    IN_VAIN = "in vain"
    """A client may come back to it, and has missed something of which there is no trace."""


class StandaloneStreams(Protocol):
    """Where sessions send what belongs to no request. The streams are the edge's: they outlive a passivation."""

    def publish(self, address: Address, message: dict[str, Any]) -> bool:
        """Send on the session's standalone stream; False if it is not in memory."""
        ...

    async def wake(self, address: Address, *, begin: bool = False) -> bool:
        """Bring the session's standalone stream back from the log; False if there is none, unless it is to `begin`."""
        ...

    async def settled(self, address: Address) -> None:
        """Return when what has been published is as durable as it will be for now. Has a deadline of its own."""
        ...

    def standalone(self, address: Address) -> Exchange | None:
        """The session's standalone stream, if it is in memory."""
        ...
