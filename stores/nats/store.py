"""`NatsStore`: records in a JetStream key-value bucket, for the nodes of a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from ..address import Address
from ..arguments import checked_limit, checked_text, checked_ttl
from ..calls import Calls
from ..errors import RecordExists, RecordNotFound, StaleEpoch
from ..event_log import EventLogBounds
from ..record import Page, Record, RecordInfo
from .bodies import Bodies
from .bucket import Bucket, WrongRevision
from .client import NatsClient
from .connection import close, connect
from .errors import NatsUnavailable
from .events import NatsEventLog
from .listing import Listing
from .opening import BucketOptions, bucket_of, open_bucket
from .records import Head
from .revisions import MARGIN, Revisions, Stored
from .settings import NatsSettings

__all__ = ["NatsStore"]

_ATTEMPTS = 100
"""Times that a write is tried when others write the same record in the same moment."""


class NatsStore:
    """A `SessionStore` in NATS JetStream, 2.11 or later: shared by all nodes that name the same bucket.

    A write is one compare-and-set on the revision of the record's key, so NATS itself lets one of two writers win.
    Expired records are removed by the server. While NATS is away every call raises `StoreUnavailable` at once; the
    store comes back by itself.

    Made by `open`, on the event loop that uses it. A cancelled call may still take effect.
    """

    shared = True

    def __init__(
        self,
        client: NatsClient,
        bucket: Bucket,
        clock: Callable[[], float],
        *,
        max_calls: int = 10_000,
        close_timeout: float = 5.0,
        event_bounds: EventLogBounds | None = None,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._bodies = Bodies(bucket)
        self._revisions = Revisions(bucket, self._bodies)
        self._listing = Listing(bucket)
        self._calls = Calls(max_calls, "NATS", NatsUnavailable)
        self._clock = clock
        self._close_timeout = close_timeout
        self._events = NatsEventLog(bucket, self._calls, event_bounds or EventLogBounds())

    @property
    def events(self) -> NatsEventLog:
        """The event log beside the bucket; closed with the store."""
        return self._events

    @property
    def identity(self) -> str:
        """What tells this store from others, whatever URLs lead to it: the bucket, and when it was made."""
        return f"NATS bucket {self._bucket.name} made {self._bucket.made}"

    @classmethod
    async def open(
        cls,
        settings: NatsSettings,
        bucket: BucketOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        name: str = "understudy store",
        timeout: float = 5.0,
        max_calls: int = 10_000,
        event_bounds: EventLogBounds | None = None,
    ) -> Self:
        """Connect, and open the bucket or make it.

        Args:
            clock: Seconds since the Unix epoch.
            name: What NATS shows as the name of the connection.
            timeout: Seconds that NATS has for each answer; no call takes longer than three times this.
            max_calls: At this many calls under way the next raises `StoreUnavailable`.
            event_bounds: What `events` keeps; the node that opened last says it for all.

        Raises:
            NatsUnavailable: No server answers, or it refuses us, or has no JetStream; each its own subclass.
            StoreVersionError, StoreCorrupt, StoreURLError: The bucket is not fit; see `open_bucket`.
        """
        client = await connect(settings, name=name, deadline=timeout)
        try:
            found = await open_bucket(client, bucket or BucketOptions(), timeout=timeout)
        except BaseException:
            await close(client, timeout=1.0)
            raise
        return cls(client, found, clock, max_calls=max_calls, event_bounds=event_bounds)

    @classmethod
    async def from_url(
        cls, url: str, *, clock: Callable[[], float] = time.time, event_bounds: EventLogBounds | None = None
    ) -> Self:
        """From `nats://host:4222/bucket?replicas=3&storage=file&max_bytes=...`, and what `NatsSettings.from_url` takes.

        Raises:
            StoreURLError: It cannot be understood. Otherwise as `open`.
        """
        settings, bucket = bucket_of(url)
        return await cls.open(settings, bucket, clock=clock, event_bounds=event_bounds)

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`."""
        now = self._clock()
        expires = now + checked_ttl(ttl)
        checked_text("tenant", tenant)
        checked_text("owner", owner)
        info = RecordInfo(address, tenant, 1, 1, owner, now, now, expires)
        with self._calls.writing:
            async with self._revisions.alone(address):
                # Most often there is nothing; one that looks first pays a round trip for it.
                before = Stored(0, None)
                for attempt in range(_ATTEMPTS):
                    try:
                        head = await self._revisions.write(info, snapshot, before, now)
                        return head.record(snapshot)
                    except WrongRevision:
                        before = await self._revisions.after_conflict(address, attempt)
                    if before.head is not None and before.head.info.expires > now:
                        raise RecordExists(address)
                raise _contended(address)

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        """See `AdoptsRecords.adopt`."""
        now = self._clock()
        address = record.address
        info = RecordInfo(
            address,
            record.tenant,
            record.epoch,
            record.version,
            record.owner,
            record.created,
            record.updated,
            record.expires,
        )
        with self._calls.writing:
            async with self._revisions.alone(address):
                before = Stored(0, None) if over is None else await self._revisions.read(address)
                for attempt in range(_ATTEMPTS):
                    there = None if before.head is None or before.head.info.expires <= now else before.head.info
                    if there is not None and (there.epoch, there.version) != over:
                        if (there.epoch, there.version) == (info.epoch, info.version):
                            return
                        raise RecordExists(address)
                    try:
                        await self._revisions.write(info, record.snapshot, before, now)
                        return
                    except WrongRevision:
                        before = await self._revisions.after_conflict(address, attempt)
                raise _contended(address)

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`."""
        checked_text("owner", owner)
        now = self._clock()
        with self._calls.writing:
            async with self._revisions.alone(address):
                before = await self._revisions.read(address)
                for attempt in range(_ATTEMPTS):
                    head = _live(address, before, now)
                    snapshot = await self._bodies.read(head)
                    if snapshot is not None:
                        info = replace(head.info, epoch=head.info.epoch + 1, owner=owner)
                        try:
                            await self._revisions.write(info, head.body, before, now)
                            return Head(info, head.body).record(snapshot)
                        except WrongRevision:
                            pass
                    before = await self._revisions.after_conflict(address, attempt)
                raise _contended(address)

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        now = self._clock()
        with self._calls.reading:
            for attempt in range(_ATTEMPTS):
                stored = await self._revisions.read(address)
                if stored.head is None or stored.head.info.expires <= now:
                    return None
                snapshot = await self._bodies.read(stored.head)
                if snapshot is not None:
                    return stored.head.record(snapshot)
                # Saved anew while we read: the parts of the snapshot before are gone.
                await asyncio.sleep(0.001 * attempt)
            raise _contended(address)

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`. One round trip if this store wrote the record last."""
        now = self._clock()
        expires = now + checked_ttl(ttl)
        with self._calls.writing:
            async with self._revisions.alone(address):
                before = self._revisions.known(address)
                if before is None or not _precedes(before, epoch, version, now):
                    before = await self._revisions.read(address)
                for attempt in range(_ATTEMPTS):
                    info = _fenced(address, before, epoch, now).info
                    if info.version == version:
                        return
                    if info.version != version - 1:
                        raise StaleEpoch(address, held=epoch, stored=info.epoch)
                    try:
                        await self._revisions.write(
                            replace(info, version=version, updated=now, expires=expires), snapshot, before, now
                        )
                        return
                    except WrongRevision:
                        before = await self._revisions.after_conflict(address, attempt)
                raise _contended(address)

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`. Costs as much as a save: NATS knows no part of a value."""
        now = self._clock()
        expires = now + checked_ttl(ttl)
        with self._calls.writing:
            async with self._revisions.alone(address):
                before = await self._revisions.read(address)
                for attempt in range(_ATTEMPTS):
                    head = _fenced(address, before, epoch, now)
                    # Parts have an end of life of their own, so they are written anew too.
                    snapshot = await self._bodies.read(head)
                    if snapshot is not None:
                        try:
                            await self._revisions.write(replace(head.info, expires=expires), snapshot, before, now)
                            return
                        except WrongRevision:
                            pass
                    before = await self._revisions.after_conflict(address, attempt)
                raise _contended(address)

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`. Leaves no marker behind."""
        now = self._clock()
        with self._calls.writing:
            async with self._revisions.alone(address):
                before = await self._revisions.read(address)
                for attempt in range(_ATTEMPTS):
                    head = before.head
                    if head is None or head.info.expires <= now:
                        return False
                    if epoch is not None and head.info.epoch != epoch:
                        raise StaleEpoch(address, held=epoch, stored=head.info.epoch)
                    self._revisions.forget(address)
                    if await self._bucket.remove(before.revision):
                        await self._bodies.discard(head)
                        return True
                    before = await self._revisions.after_conflict(address, attempt)
                raise _contended(address)

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`. In the order of a hash of the address. With `tenant` it reads the records of all."""
        now = self._clock()
        checked_limit(limit)
        after = self._listing.position(cursor)
        with self._calls.reading:
            return await self._listing.page(now, tenant, after, limit)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`. Costs nothing where `clock` tells the time: there the server itself removes a
        record a minute after its end."""
        now = self._clock()
        checked_limit(limit, most=None)
        with self._calls.writing:
            if abs(now - time.time()) < MARGIN:
                return 0
            swept = 0
            async for entry, head in self._listing.expired(now):
                if await self._bucket.remove(entry.revision):
                    self._revisions.forget(head.info.address)
                    await self._bodies.discard(head)
                    swept += 1
                    if swept == limit:
                        break
            return swept

    async def ping(self) -> None:
        """See `SessionStore.ping`. Writes one small message, in the place of the one before."""
        with self._calls.writing:
            await self._bucket.put("ping", b"", ttl=3600.0, doing="asking NATS for a write")

    async def aclose(self) -> None:
        """See `SessionStore.aclose`. Takes at most 7 seconds, whatever NATS does."""
        try:
            await self._calls.close(self._close_timeout)
        finally:
            await close(self._client, timeout=2.0)

    def stats(self) -> dict[str, float]:
        """Calls and failed ones of writing and reading, calls under way, writes that met another's, whether NATS is
        connected, how often it was reconnected."""
        return self._calls.stats() | {
            "conflicts": self._revisions.conflicts,
            "connected": 1 if self._client.is_connected else 0,
            "reconnects": self._client.stats["reconnects"],
        }


def _precedes(stored: Stored, epoch: int, version: int, now: float) -> bool:
    head = stored.head
    return (
        head is not None and head.info.epoch == epoch and head.info.version == version - 1 and head.info.expires > now
    )


def _live(address: Address, stored: Stored, now: float) -> Head:
    if stored.head is None or stored.head.info.expires <= now:
        raise RecordNotFound(address)
    return stored.head


def _fenced(address: Address, stored: Stored, epoch: int, now: float) -> Head:
    head = _live(address, stored, now)
    if head.info.epoch != epoch:
        raise StaleEpoch(address, held=epoch, stored=head.info.epoch)
    return head


def _contended(address: Address) -> NatsUnavailable:
    return NatsUnavailable(f"{address}: others write this record all the time; {_ATTEMPTS} attempts came too late")
