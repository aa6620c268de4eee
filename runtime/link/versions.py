"""Versions of the wire format, and which one two nodes speak with each other."""

from __future__ import annotations

from typing import Final

from ..errors import ConfigurationError

__all__ = ["OLDEST", "SEALED", "VERSION", "Versions", "checked_versions", "negotiate"]

OLDEST: Final = 1
"""A call's head all by position, without a trace; pings without a nonce."""
SEALED: Final = 4
"""The first version whose batches are sealed: nobody without the cluster's key can make one."""
VERSION: Final = 4
"""2: the optional fields of a call's head as a map, in which unknown keys are skipped, and a trace among them; pings
carry a nonce that comes back in the pong. 3: headers, and what calls have in common, each in one piece that the reader
may look up. 4: the same frames in batches that are sealed (`Seals`) instead of with a checksum."""

Versions = tuple[int, int]
"""The oldest and the newest version that a node speaks."""


def checked_versions(versions: Versions) -> Versions:
    """`versions`, if this code speaks them. `(1, 1)` makes a node speak as the release before does.

    Raises:
        ConfigurationError: It does not.
    """
    oldest, newest = versions
    if OLDEST <= oldest <= newest <= VERSION:
        return versions
    raise ConfigurationError(
        f"link versions {versions!r} must be a pair (oldest, newest) within {OLDEST} to {VERSION}, the ones spoken here"
    )


def negotiate(mine: Versions, theirs: Versions) -> int | None:
    """The newest version that both speak; None if there is none."""
    newest = min(mine[1], theirs[1])
    return newest if newest >= max(mine[0], theirs[0]) else None
