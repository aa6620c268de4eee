"""`ClusterConnection`: a node's connection to its cluster's NATS, and what all nodes have in common there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from nats.errors import Error as NatsError

from ...stores.nats.bucket import Bucket
from ...stores.nats.client import NatsClient
from ...stores.nats.connection import close, connect, jetstream, translated
from ...stores.nats.errors import NatsRefused, NatsUnavailable
from .buckets import Buckets
from .commons import ClusterCommons
from .kv_directory import KVDirectory
from .names import Names
from .options import ClusterOptions

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

__all__ = ["DIRECTORY_TIMEOUT", "ClusterConnection"]

logger = logging.getLogger("understudy.cluster")

DIRECTORY_TIMEOUT: Final = 2.0
COUNTERS_TIMEOUT: Final = 1.0


class ClusterConnection:
    """Made, opened and closed by `Cluster`. Until it has been opened, only `alive` and `why_not` are there."""

    client: NatsClient
    buckets: Buckets
    directory: KVDirectory
    settings: KeyValue
    """What all nodes must agree on."""

    def __init__(
        self,
        options: ClusterOptions,
        names: Names,
        node_id: str,
        *,
        session_ttl: float,
        lost: Callable[[], None],
        found: Callable[[], None],
    ) -> None:
        """`session_ttl` in seconds. `lost` and `found` are called when the connection breaks, and is there again."""
        self._options = options
        self._names = names
        self._node_id = node_id
        self._session_ttl = session_ttl
        self._lost = lost
        self._found = found
        self._stack = AsyncExitStack()
        self.alive = False
        self.why_not = ""
        """Why the last try to connect again failed; empty if it did not, or none was made."""

    async def open(self, commons: ClusterCommons) -> None:
        """Connect, open the buckets, and have `commons` learn the cluster's keys. However it ends, `aclose` is due.

        Raises:
            NatsUnavailable: No server, it refused us, or it has no JetStream; the message says what to do.
        """
        self.client = await connect(
            self._options.settings,
            name=f"understudy {self._options.name} {self._node_id}",
            on_disconnected=self._disconnected,
            on_reconnected=self._reconnected,
            on_error=self._failed,
        )
        self._stack.push_async_callback(close, self.client)
        self.alive = True
        context = await jetstream(self.client, timeout=DIRECTORY_TIMEOUT)
        self.buckets = Buckets(
            context,
            self._names,
            lease=self._options.lease,
            ttl=self._session_ttl,
            replicas=self._options.replicas,
        )
        self.directory = KVDirectory(await self.buckets.directory(), context, self._names.directory_bucket)
        self.settings = await self.buckets.settings()
        try:
            await commons.learn_keys(self.settings)
        except (NatsError, OSError, TimeoutError) as error:
            raise translated(error, "reading what all nodes agree on") from error

    async def counters(self) -> Bucket:
        """The bucket in which the nodes count together, made if it is not there.

        Raises:
            ClusterError, NatsUnavailable: It cannot be made.
        """
        await self.buckets.counters()
        return Bucket(self.client, self._names.counters_bucket, COUNTERS_TIMEOUT, replicas=self._options.replicas)

    async def aclose(self) -> None:
        """Undo `open`, as far as it came. Idempotent."""
        await self._stack.aclose()

    def _disconnected(self) -> None:
        self.alive = False
        self._lost()

    def _failed(self, error: NatsUnavailable) -> None:
        if self.alive:
            return
        # Every try is told; of those that fail alike, as long as the outage lasts, one is worth a line.
        if isinstance(error, NatsRefused) and str(error) != self.why_not:
            logger.warning("NATS does not take this node back: %s", error)
        self.why_not = str(error)

    def _reconnected(self) -> None:
        self.alive = True
        self.why_not = ""
        self._found()
