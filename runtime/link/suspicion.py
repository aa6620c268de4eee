"""`Suspicion`: tells an operator that somebody may be writing in a node's name, and does not tell whoever that is."""

from __future__ import annotations

import logging
from math import inf
from typing import Final

from ...actors.clock import Clock
from .counters import LinkCounters

__all__ = ["Suspicion"]

logger = logging.getLogger(__name__)

SUSPECT_EVERY: Final = 60.0
"""Seconds for which one line in the log is enough."""


class Suspicion:
    """Of one link, which counts each batch itself."""

    __slots__ = ("_clock", "_counters", "_told_at")

    def __init__(self, counters: LinkCounters, clock: Clock) -> None:
        self._counters = counters
        self._clock = clock
        self._told_at = -inf

    def note(self, peer: str, error: Exception) -> None:
        """What came in the name of `peer` was dropped because of `error`."""
        now = self._clock.monotonic()
        if now - self._told_at < SUSPECT_EVERY:
            return
        self._told_at = now
        logger.warning(
            "dropped what came in the name of node %s: %s (so far %d forged, %d without a seal). Somebody else can "
            "write to the cluster's NATS, or that node has other keys, or speaks a version from before seals",
            peer,
            error,
            self._counters.forged,
            self._counters.unsealed_refused,
        )
