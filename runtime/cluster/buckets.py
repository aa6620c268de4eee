"""`Buckets`: the cluster's key-value buckets, opened or made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import BadRequestError, BucketNotFoundError

from ...stores.nats.connection import translated
from .errors import ClusterError
from .names import Names
from .nats_api import create_bucket, lengthen

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.kv import KeyValue

__all__ = ["Buckets"]

SHORTEST_MEMORY: Final = 3600.0
"""Seconds that the directory remembers at least where an address was."""

COUNTED_FOR: Final = 7 * 86_400.0
"""Seconds after which what nobody has changed counts no more: a stream that is open for longer, and nothing else."""


class Buckets:
    """Each is made by the first node that asks for it. On disk, so that a restart of NATS forgets nothing."""

    def __init__(self, jetstream: JetStreamContext, names: Names, *, lease: float, ttl: float, replicas: int) -> None:
        """`lease` and `ttl` (of sessions) in seconds."""
        self._jetstream = jetstream
        self._names = names
        self._lease = lease
        self._ttl = ttl
        self._replicas = replicas

    async def nodes(self) -> KeyValue:
        """Leases, by node id. What is not renewed for long goes by itself."""
        return await self._open(self._names.nodes_bucket, "leases of nodes", ttl=max(self._lease * 3, 10.0))

    async def directory(self) -> KeyValue:
        """Entries, by address. They outlive the sessions' own time, so that none is missed while its session lives."""
        return await self._open(
            self._names.directory_bucket, "which node owns which session", ttl=max(self._ttl * 2, SHORTEST_MEMORY)
        )

    async def settings(self) -> KeyValue:
        """What all nodes must agree on."""
        return await self._open(self._names.settings_bucket, "what all nodes agree on")

    async def counters(self) -> KeyValue:
        """What tenants have used in the last minute, and what they use now. In memory: it is worth nothing later."""
        return await self._open(
            self._names.counters_bucket, "what tenants use", storage=StorageType.MEMORY, ttl=COUNTED_FOR
        )

    async def _open(
        self, bucket: str, description: str, *, storage: StorageType = StorageType.FILE, **options: Any
    ) -> KeyValue:
        """
        Raises:
            ClusterError: NATS will not have it.
            NatsUnavailable: It does not answer, or has no room.
        """
        try:
            return await self._opened_or_made(bucket, description, storage, options)
        except (NatsError, OSError, TimeoutError) as error:
            raise translated(error, f"opening the bucket {bucket}") from error

    async def _opened_or_made(
        self, bucket: str, description: str, storage: StorageType, options: dict[str, Any]
    ) -> KeyValue:
        try:
            found = await self._jetstream.key_value(bucket)
        except BucketNotFoundError:
            pass
        else:
            if "ttl" in options:
                # Made for shorter leases, it would lose longer ones before they are renewed.
                await lengthen(self._jetstream, found, options["ttl"])
            return found
        config = KeyValueConfig(
            bucket=bucket,
            description=f"understudy cluster {self._names.cluster}: {description}",
            history=1,
            replicas=self._replicas,
            direct=True,
            storage=storage,
            **options,
        )
        try:
            return await create_bucket(self._jetstream, config)
        except BadRequestError as error:
            # Another node has made it a moment ago, in its own way.
            try:
                return await self._jetstream.key_value(bucket)
            except NatsError:
                raise ClusterError(f"NATS does not make the bucket {bucket}: {error.description}") from error
