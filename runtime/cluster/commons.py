"""`ClusterCommons`: what a server shares with its like at the other nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from nats.errors import Error as NatsError

from ...actors.session.commons import SharedSeal
from ...actors.session.tenant_bus import TenantBus
from .bus import BusHub
from .errors import ClusterError
from .key_ring import KeyRing

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

__all__ = ["ClusterCommons"]

logger = logging.getLogger("understudy.cluster")

LOOK: Final = 60.0
"""Seconds after which the keys are looked at though nobody has told of a change."""
DEADLINE: Final = 10.0


class ClusterCommons:
    """See `Commons`. Made before the cluster is joined; until then it serves this node alone."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        """`keys` seal `requestState`; without, the first node of a cluster makes one for all.

        Raises:
            ValueError: A key of less than 32 bytes.
        """
        self.seal = SharedSeal()
        self.hub = BusHub()
        self.keys = KeyRing(self.seal, keys)
        self._look_now = asyncio.Event()

    def bus_for(self, tenant: str) -> TenantBus:
        """See `Commons.bus_for`."""
        return self.hub.for_tenant(tenant)

    async def learn_keys(self, settings: KeyValue) -> None:
        """Take the cluster's keys, or make them. Raises nats-py's errors.

        Raises:
            ClusterError: What the bucket holds are no keys, or nodes make and remove them without end.
        """
        await self.keys.learn(settings)

    def look_at_keys(self) -> None:
        """They may have changed."""
        self._look_now.set()

    def heard_of_keys(self, fingerprints: tuple[str, ...]) -> None:
        """Another node opens with these. One that is unknown here was missed: the message that told of it was lost, or
        came before it could be read."""
        if not set(fingerprints) <= set(self.keys.fingerprints):
            self.look_at_keys()

    async def keep_keys_forever(
        self,
        settings: KeyValue,
        others: Callable[[], Mapping[str, tuple[str, ...]]],
        *,
        every: float | None,
        soon: float,
        learned: Callable[[], None],
    ) -> None:
        """Learn of new keys and change old ones, as `KeyRing.advance`. Until cancelled.

        `soon`: seconds between two looks while a new key waits for the other nodes, and at first those after which one
        that failed is tried again. `learned` is called when other keys open here than before.
        """
        if self.keys.given:
            return
        failures = 0
        while True:
            before = self.keys.fingerprints
            self._look_now.clear()
            try:
                async with asyncio.timeout(DEADLINE):
                    await self.keys.learn(settings)
                    await self.keys.advance(settings, others(), every=every)
                failures = 0
            except (NatsError, ClusterError, OSError, TimeoutError) as error:
                failures += 1
                logger.warning("the keys of requestState stay as they are for now: %r", error)
            if self.keys.fingerprints != before:
                learned()
            try:
                wait = soon if self.keys.changing else LOOK
                async with asyncio.timeout(min(LOOK, soon * 2 ** min(failures, 10)) if failures else wait):
                    await self._look_now.wait()
            except TimeoutError:
                pass
