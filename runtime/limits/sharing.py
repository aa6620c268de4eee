"""`Sharing`: what all parts of limits have in common that nodes count together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from ...actors.clock import Clock
from ...actors.task_owner import TaskOwner
from .guarded_counters import GuardedCounters
from .ledger import WINDOW, Ledger

__all__ = ["LASTING", "SHARE", "Exhausted", "Sharing", "read_ledger"]

logger = logging.getLogger("understudy.limits")

SHARE: Final = 20
"""A node holds no more than the SHARE-th part of a limit ahead of need; of a limit below that, nothing."""
LASTING: Final = 2 * WINDOW
"""Seconds after which nothing in a rate's ledger matters any more."""


class Exhausted(Exception):
    """Nothing is left. `retry_after`: seconds until something may be."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Sharing(NamedTuple):
    """What all pools of a node have in common."""

    counters: GuardedCounters
    clock: Clock
    wall: Callable[[], float]
    """Seconds since the Unix epoch."""
    me: Callable[[], str]
    """What this node is called in ledgers: another name after it was taken for dead."""
    alive: Callable[[str], bool | None]
    """Whether another node lives; None: it was never heard of."""
    tasks: TaskOwner
    next_serial: Callable[[], int]
    """A number for a report, higher than all before it of this node: also than those of a pool made anew."""


def read_ledger(key: str, packed: bytes | None) -> Ledger:
    """The ledger in a record. One that cannot be read is begun anew: to refuse everybody for ever would be worse."""
    try:
        return Ledger.unpack(packed)
    except ValueError as error:
        logger.error("what is counted at %s begins anew: %s", key, error)
        return Ledger()
