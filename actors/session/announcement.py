"""`announced`: telling the cluster of a new session before its client learns of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ...stores import Address

__all__ = ["Announce", "announced"]

logger = logging.getLogger(__name__)

PATIENCE: Final = 2.0
"""Seconds that an announcement may take."""

Announce = Callable[[Address], Awaitable[None]]
"""Told of each session that has been opened and saved. The session is open whatever comes of it."""


async def announced(announce: Announce | None, address: Address) -> None:
    """Return when `address` has been announced, or could not be within `PATIENCE` seconds, which is logged."""
    if announce is None:
        return
    try:
        async with asyncio.timeout(PATIENCE):
            await announce(address)
    except Exception as error:
        # The record says whose the session is; without the announcement others only find out more slowly.
        logger.warning("session %s could not be announced: %s: %s", address, type(error).__name__, error)
