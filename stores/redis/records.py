"""Times and lifetimes as the scripts take and return them: whole microseconds, as text."""

from __future__ import annotations

__all__ = ["lifetime", "microseconds", "seconds"]

_LONGEST = 1e9
"""Seconds: thirty years, so that the end of a life is a number that Lua has exactly."""


def microseconds(time: float) -> bytes:
    """A time for a script."""
    return b"%d" % round(time * 1e6)


def seconds(text: bytes) -> float:
    """A time from a script."""
    return int(text) / 1e6


def lifetime(ttl: float) -> bytes:
    """A lifetime for a script: at least a microsecond, so that a record that is made has been there."""
    return b"%d" % max(round(min(ttl, _LONGEST) * 1e6), 1)
