"""`Striking`: takes the lease of a node out of NATS that may live, before anybody takes what it holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from .directory import DirectoryUnavailable
from .entry import node_of
from .nats_api import delete_at
from .node_news import unpack_news
from .ownership import Ownership

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

__all__ = ["Striking"]

logger = logging.getLogger("understudy.cluster")

STRIKE_TIMEOUT: Final = 2.0
"""Seconds."""


class Striking:
    """Of one node, for whoever found nobody at another; owned by its `Membership`."""

    def __init__(self, bucket: Callable[[], KeyValue], ownership: Ownership) -> None:
        """`bucket`: that of leases, once it is open."""
        self._bucket = bucket
        self._ownership = ownership
        self._one_at_a_time = asyncio.Lock()

    async def strike(self, incarnation: str) -> None:
        """Take the lease of `incarnation` out of NATS: should it live, it cannot renew, and lets go of what it holds.

        Idempotent; those that ask for the same at once cost one deletion.

        Raises:
            DirectoryUnavailable: Not known to be done.
        """
        try:
            # Those that wait for the same have no more time than the one that does it.
            async with asyncio.timeout(STRIKE_TIMEOUT), self._one_at_a_time:
                if not self._ownership.must_strike(incarnation):
                    return
                while not await self._struck(incarnation):
                    logger.debug("%s has just renewed its lease", incarnation)
                self._ownership.peers.strike(incarnation)
        except (NatsError, TimeoutError, OSError) as error:
            raise DirectoryUnavailable(f"the lease of {incarnation} cannot be struck: {error!r}") from error

    async def _struck(self, incarnation: str) -> bool:
        """One try; False if the lease has changed at that moment."""
        bucket, node = self._bucket(), node_of(incarnation)
        try:
            found = await bucket.get(node, validate_keys=False)
        except KeyNotFoundError:
            return True
        present = unpack_news(found.value or b"")
        if present is not None and present.incarnation != incarnation:
            return True
        try:
            await delete_at(bucket, node, found.revision)
        except KeyWrongLastSequenceError:
            return False
        logger.warning("the lease of %s is struck: nobody was found there, and its sessions are taken", incarnation)
        return True
