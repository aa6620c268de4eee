"""`watch_the_move`: sees when nothing is left in the store that a cluster moves from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ...actors.clock import Clock, within
from ...stores import SessionStore, StoreError
from ...stores.moving import StorePair

__all__ = ["watch_the_move"]

logger = logging.getLogger("understudy.cluster")

LOOK_EVERY: Final = 2.0
"""Seconds."""


async def watch_the_move(store: SessionStore, clock: Clock, *, changed: Callable[[], None]) -> None:
    """Look now and then into the store that `store` moves sessions from, which other nodes must know to be empty before
    they may do without it. Until cancelled; returns at once where nothing is moved.

    `changed` is called when there is nothing left, or something again.
    """
    pair = getattr(store, "inner", store)
    if not isinstance(pair, StorePair) or not pair.moves:
        return
    while True:
        await clock.sleep(LOOK_EVERY)
        before = pair.left
        try:
            await within(clock, LOOK_EVERY, pair.look())
        except (StoreError, TimeoutError) as error:
            logger.info("the former store does not say whether something is left: %s", error or "no answer in time")
        if pair.left != before:
            changed()
