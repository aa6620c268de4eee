"""`ClusterCommons`: what a server shares with its like at the other nodes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mcp.server.subscriptions import SubscriptionBus
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from ...actors.packing import pack, unpack
from ...actors.session.commons import SharedSeal
from .bus import BusHub
from .errors import ClusterError

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

__all__ = ["ClusterCommons"]

logger = logging.getLogger("understudy.cluster")

_KEY: Final = "request-state"
KEY_BYTES: Final = 32
TRIES: Final = 10


class ClusterCommons:
    """See `Commons`. Made before the cluster is joined; until then it serves this node alone."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        """`keys` seal `requestState`; without, the first node of a cluster makes one for all.

        Raises:
            ValueError: A key of less than 32 bytes.
        """
        self.seal = SharedSeal()
        self.hub = BusHub()
        self._given = bool(keys)
        if keys:
            self.seal.use(keys)

    def bus_for(self, tenant: str) -> SubscriptionBus:
        """See `Commons.bus_for`."""
        return self.hub.for_tenant(tenant)

    async def learn_keys(self, settings: KeyValue) -> None:
        """Take the cluster's keys, or make them.

        Raises:
            ClusterError: What the bucket holds are no keys, or nodes make and remove them without end.
        """
        if self._given:
            return
        for _ in range(TRIES):
            try:
                found = await settings.get(_KEY, validate_keys=False)
            except KeyNotFoundError:
                try:
                    await settings.create(_KEY, pack([secrets.token_bytes(KEY_BYTES)]), validate_keys=False)
                except KeyWrongLastSequenceError:
                    logger.debug("another node has made the keys at the same moment")
                continue
            try:
                self.seal.use(_keys(found.value or b""))
            except ValueError as error:
                raise ClusterError(
                    f"the value of {_KEY!r} in the NATS bucket of the cluster's settings is no list of keys ({error}): "
                    "remove it, upon which the next node to start makes a new one, and start all nodes again"
                ) from error
            return
        raise ClusterError(f"the value of {_KEY!r} in the NATS bucket of the cluster's settings comes and goes")


def _keys(packed: bytes) -> list[bytes]:
    match unpack(packed):
        # Not `bytes(key)`: of a number that makes so many zeros.
        case [*keys] if keys and all(isinstance(key, bytes) for key in keys):
            return keys
        case _:
            raise ValueError("not a list of bytes")
