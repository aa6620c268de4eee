"""`StreamRoom`: what the streams of all sessions of a node may keep in memory together."""

from __future__ import annotations

from typing import Final

__all__ = ["StreamRoom"]

MAX_SESSION_BYTES: Final = 32 * 2**20
"""Bytes of events that one session's streams keep in memory together."""
MAX_NODE_BYTES: Final = 512 * 2**20
"""Bytes that those of all sessions keep, before a session that wants more gets its share of this, and no more."""
LEAST_SHARE: Final = 64 * 1024
"""Bytes that a session may keep however many there are."""


class StreamRoom:
    """Counts bytes, and says how many a session may have.

    While there is room a session may have much, so that a slow reader misses nothing. Many such sessions get equal
    shares: what is more is in the event log, from where a client that comes back has it.
    """

    __slots__ = ("sessions", "taken")

    def __init__(self) -> None:
        self.taken = 0
        """Bytes that all sessions keep."""
        self.sessions = 0
        """How many of them keep any."""

    @property
    def share(self) -> int:
        """Bytes that a session may keep now."""
        if self.taken <= MAX_NODE_BYTES:
            return MAX_SESSION_BYTES
        return min(max(MAX_NODE_BYTES // self.sessions, LEAST_SHARE), MAX_SESSION_BYTES)

    def took(self, before: int, after: int) -> None:
        """A session that kept `before` bytes keeps `after`."""
        self.taken += after - before
        self.sessions += (after > 0) - (before > 0)
