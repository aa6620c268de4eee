"""`Outage`: why no connection can be made, and when it is time to try again."""

from __future__ import annotations

import random

from .errors import RedisRefused, RedisUnavailable

__all__ = ["Outage"]

SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between two attempts to connect."""


class Outage:
    """Of one server, for all connections to it; over as soon as one has been made."""

    def __init__(self) -> None:
        self._failure: RedisUnavailable | None = None
        self._pause = SHORTEST_PAUSE
        self.not_before = 0.0
        """By the event loop's clock."""

    def failure(self, now: float) -> RedisUnavailable | None:
        """Why the last attempt failed; None when it is time for another."""
        return None if self._failure is None or now >= self.not_before else again(self._failure)

    def failed(self, failure: RedisUnavailable, now: float) -> None:
        """An attempt has failed."""
        known = self._failure is not None and now < self.not_before
        self._failure = failure
        if known:
            # Attempts of several connections at one moment are one.
            return
        self.not_before = now + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def over(self) -> None:
        """An attempt has succeeded."""
        self._failure = None
        self._pause = SHORTEST_PAUSE


def again(failure: RedisUnavailable) -> RedisUnavailable:
    """The same for another call: what is raised twice collects tracebacks."""
    kind = RedisRefused if isinstance(failure, RedisRefused) else RedisUnavailable
    return kind(str(failure), retry_after=failure.retry_after)
