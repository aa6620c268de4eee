"""The frames that two nodes exchange.

A channel is one call. Its number is the caller's; the owner answers with the same number. `part` is a piece of a
body, `more` tells whether others follow.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from .head import CallHead
from .headers import Headers

__all__ = [
    "LOOSE",
    "MAX_NUMBER",
    "MAX_REASON",
    "Body",
    "Call",
    "Cancel",
    "Failed",
    "Frame",
    "GrantRequest",
    "GrantResponse",
    "NotRunFrame",
    "Ping",
    "Pong",
    "RequestBody",
    "Start",
]

MAX_NUMBER: Final = 2**53
"""Of channels, sequence numbers and nonces."""
MAX_REASON: Final = 256


class Call(NamedTuple):
    """A call, and as much of its body as fits. It runs once its body is complete."""

    channel: int
    head: CallHead
    part: bytes = b""
    more: bool = False


class RequestBody(NamedTuple):
    """More of a call's body."""

    channel: int
    part: bytes
    more: bool


class GrantRequest(NamedTuple):
    """From the owner: the caller may send `size` more bytes of the request body."""

    channel: int
    size: int


class Cancel(NamedTuple):
    """From the caller: nobody waits for the response any more."""

    channel: int


class Start(NamedTuple):
    """Status and headers of the response, and as much of its body as fits: a small response is this one frame."""

    channel: int
    status: int
    headers: Headers
    part: bytes = b""
    more: bool = False


class Body(NamedTuple):
    """More of the response's body."""

    channel: int
    part: bytes
    more: bool


class GrantResponse(NamedTuple):
    """From the caller: the owner may send `size` more bytes of the response body."""

    channel: int
    size: int


class NotRunFrame(NamedTuple):
    """The call was refused before anything ran."""

    channel: int
    reason: str
    data: dict[str, Any]


class Failed(NamedTuple):
    """The call may have run, and no (complete) response will come."""

    channel: int
    reason: str


class Ping(NamedTuple):
    """Say something, whoever you are."""

    nonce: int = 0


class Pong(NamedTuple):
    """Here I am."""

    nonce: int = 0


Frame = (
    Call
    | RequestBody
    | GrantRequest
    | Cancel
    | Start
    | Body
    | GrantResponse
    | NotRunFrame
    | Failed
    | Ping
    | Pong
)  # fmt: skip

LOOSE: Final = frozenset((Ping, Pong))
"""What may be lost."""
