"""A node's incarnation (`node-1.k3f9a2`) as one token of a NATS subject (`node-1~k3f9a2`)."""

from __future__ import annotations

import re
from typing import Final

from ..errors import ConfigurationError

__all__ = ["checked_incarnation", "from_token", "to_token"]

_INCARNATION: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}")


def checked_incarnation(incarnation: str) -> str:
    """`incarnation`, if it is one.

    Raises:
        ConfigurationError: It is not two words of letters, digits, `-` and `_` with a dot between them.
    """
    if _INCARNATION.fullmatch(incarnation) is None:
        raise ConfigurationError(
            f"incarnation {incarnation[:160]!r} must be a node id, a dot and a part that is new at each start, "
            "each 1 to 64 letters, digits, - and _"
        )
    return incarnation


def to_token(incarnation: str) -> str:
    """The dot separates tokens in NATS, so it is written `~` there."""
    return incarnation.replace(".", "~")


def from_token(token: str) -> str | None:
    """The inverse of `to_token`; None for a token that is no incarnation's."""
    incarnation = token.replace("~", ".")
    return incarnation if _INCARNATION.fullmatch(incarnation) is not None and "." not in token else None
