"""How a forwarded call can end without a complete response, and what a link refuses to send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...stores import UnderstudyError

__all__ = ["CallFailed", "LinkClosed", "LinkError", "NotRun", "PeerGone", "Unsendable"]


class LinkError(UnderstudyError):
    """A call did not cross the link as it should have."""


class NotRun(LinkError):
    """Surely nothing ran. `reason` is a short code, `data` what the refuser adds to it.

    The reasons of the link itself are `busy` (too many calls, here or there), `too_large` (the body), `closing` (the
    peer stops), `version` (no common wire version) and `deadline` (the budget was spent before the call could leave).
    """

    def __init__(self, peer: str, reason: str, data: Mapping[str, Any]) -> None:
        super().__init__(f"{peer} did not run the call: {reason}")
        self.peer = peer
        self.reason = reason
        self.data = data


class PeerGone(LinkError):
    """The peer died, was replaced, or answers no more; no complete response will come.

    `maybe_ran` is False only where it is certain that the peer never got the whole call.
    """

    def __init__(self, peer: str, why: str, *, maybe_ran: bool) -> None:
        outcome = "the call may have run" if maybe_ran else "the call never arrived"
        super().__init__(f"{peer} is gone ({why}); {outcome}")
        self.peer = peer
        self.maybe_ran = maybe_ran


class CallFailed(LinkError):
    """The peer took the call and gave up on it: its handler raised, or ended without a complete response."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"{peer} gave up on the call after it had begun: {reason}")
        self.peer = peer
        self.reason = reason


class Unsendable(LinkError, ValueError):
    """What was to be sent does not fit a frame, or holds what msgpack cannot carry. Nothing was sent."""


class LinkClosed(LinkError, RuntimeError):
    """The link was used before it was entered, or after it was left."""

    def __init__(self) -> None:
        super().__init__("the link is not running: use it inside `async with link:`")
