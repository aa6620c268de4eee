"""`RedisStore`: records in Redis or Valkey, for all nodes that reach it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Self

from ..address import Address
from ..arguments import checked_limit, checked_text, checked_ttl
from ..calls import Calls
from ..errors import RecordExists, RecordNotFound, StaleEpoch
from ..event_log import EventLogBounds
from ..record import Page, Record
from .cluster import ClusterRoute
from .errors import RedisUnavailable
from .event_scripts import EVENT_SCRIPTS
from .events import RedisEventLog
from .keys import Keys, shard_of
from .listing import Listing
from .marks import Marks
from .opening import look_around, open_schema
from .records import lifetime, microseconds, seconds
from .route import OneServer, Route
from .scripts import ADOPT, CLAIM, CREATE, DELETE, GONE, LOAD, PROBE, SAVE, SCRIPTS, TOUCH
from .settings import RedisSettings

__all__ = ["RedisStore"]

logger = logging.getLogger(__name__)

MAX_SNAPSHOT = 128 * 2**20
"""Bytes; Redis itself would take 512 MiB, and hang up on who sends more."""


class RedisStore:
    """A `SessionStore` in Redis 6.2 or later, or Valkey: one server, one behind sentinels, or a cluster.

    Each method is one script, and so one atomic step and one round trip (`list`, `expire` and `ping`: some). Calls of
    one moment share a pipeline, and all of them a few connections of redis-py to each primary. While Redis is away
    every call raises `StoreUnavailable`; the next call after a pause connects again.

    **one-writer** holds through a fail-over that loses writes: a store sends with each write the mark that it left in
    the record when it was given the epoch, so that of two that were given one epoch, in two histories,
    one writes. See `Marks`.

    Made by `open`, on the event loop that uses it. A cancelled call may still take effect.
    """

    shared = True

    def __init__(
        self,
        route: Route,
        settings: RedisSettings,
        clock: Callable[[], float],
        *,
        id: str,
        max_calls: int = 10_000,
        close_timeout: float = 5.0,
        event_bounds: EventLogBounds | None = None,
    ) -> None:
        if max_calls < 16:
            raise ValueError(f"max_calls {max_calls} must be at least 16")
        self._route = route
        self._keys = Keys(settings.prefix)
        self._listing = Listing(route, self._keys)
        self._calls = Calls(max_calls, "Redis", RedisUnavailable)
        self._clock = clock
        # One time for all nodes where none is given: that of Redis.
        self._own_clock = clock is not time.time
        self._close_timeout = close_timeout
        self._marks = Marks()
        self._again = b"1" if settings.replicas else b"0"
        self._events = RedisEventLog(
            route,
            self._keys,
            self._calls,
            self._now,
            event_bounds or EventLogBounds(),
            replicated=settings.replicas > 0,
        )
        self.identity = f"Redis store {settings.prefix} made {id}"
        """What tells this store from others, whatever URLs lead to it."""
        self.warnings: tuple[str, ...] = ()
        """What of the servers' settings may lose acknowledged writes."""

    @property
    def events(self) -> RedisEventLog:
        """The event log beside the records; closed with the store."""
        return self._events

    @classmethod
    async def open(
        cls,
        settings: RedisSettings,
        *,
        clock: Callable[[], float] = time.time,
        name: str = "understudy-store",
        timeout: float = 5.0,
        max_calls: int = 10_000,
        event_bounds: EventLogBounds | None = None,
    ) -> Self:
        """Connect, and find the store or make it. What its servers are set to lose is logged as warnings.

        Args:
            clock: Seconds since the Unix epoch; `time.time` stands for the clock of Redis.
            name: What Redis shows as the name of the connection; without spaces.
            timeout: Seconds that Redis has for each answer, and for the first connection.
            max_calls: At this many calls under way the next raises `StoreUnavailable`; at least 16.
            event_bounds: What `events` keeps.

        Raises:
            RedisUnavailable: No server answers, or it refuses us; each with what to do.
            RedisSettingsError: A file of the settings cannot be used.
            StoreVersionError, StoreCorrupt: The keys are not fit; see `open_schema`.
        """
        make = ClusterRoute if settings.mode == "cluster" else OneServer
        route: Route = make(settings, (*SCRIPTS, *EVENT_SCRIPTS), name=name, timeout=timeout)
        try:
            await route.open(timeout)
            id = await open_schema(route, Keys(settings.prefix), settings.prefix)
            store = cls(route, settings, clock, id=id, max_calls=max_calls, event_bounds=event_bounds)
            store.warnings, _ = await asyncio.gather(look_around(route, settings), store.try_out())
        except BaseException:
            await route.aclose()
            raise
        for warning in store.warnings:
            logger.warning("%s", warning)
        return store

    @classmethod
    async def from_url(
        cls, url: str, *, clock: Callable[[], float] = time.time, event_bounds: EventLogBounds | None = None
    ) -> Self:
        """From a URL, as `RedisSettings.from_url` takes it. Raises as that and `open`."""
        return await cls.open(RedisSettings.from_url(url), clock=clock, event_bounds=event_bounds)

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`."""
        checked_ttl(ttl)
        owner_text = checked_text("owner", owner).encode()
        tenant_text = checked_text("tenant", tenant).encode()
        shard, text = shard_of(address)
        keys = self._keys
        with self._calls.writing:
            _check_size(snapshot)
            reply = await self._route.run(
                keys.slots[shard],
                CREATE,
                keys.record[shard] + text,
                keys.index[shard],
                keys.ends[shard],
                self._now(),
                lifetime(ttl),
                text,
                tenant_text,
                owner_text,
                self._marks.own,
                snapshot,
                writing=True,
            )
        if reply == 1:
            raise RecordExists(address)
        self._marks.hold(address, 1)
        now, expires = seconds(reply[0]), seconds(reply[1])
        return Record(address, tenant, 1, 1, owner, now, now, expires, snapshot)

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        """See `AdoptsRecords.adopt`."""
        address = record.address
        shard, text = shard_of(address)
        keys = self._keys
        epoch, version = (b"", b"") if over is None else (b"%d" % over[0], b"%d" % over[1])
        with self._calls.writing:
            _check_size(record.snapshot)
            reply = await self._route.run(
                keys.slots[shard],
                ADOPT,
                keys.record[shard] + text,
                keys.index[shard],
                keys.ends[shard],
                self._now(),
                text,
                record.tenant.encode(),
                record.owner.encode(),
                self._marks.own,
                record.snapshot,
                b"%d" % record.epoch,
                b"%d" % record.version,
                microseconds(record.created),
                microseconds(record.updated),
                microseconds(record.expires),
                epoch,
                version,
                writing=True,
            )
        if reply != 1:
            raise RecordExists(address)
        self._marks.forget(address)

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`."""
        owner_text = checked_text("owner", owner).encode()
        shard, text = shard_of(address)
        keys = self._keys
        with self._calls.writing:
            reply = await self._route.run(
                keys.slots[shard],
                CLAIM,
                keys.record[shard] + text,
                self._now(),
                owner_text,
                self._marks.own,
                writing=True,
            )
        if reply == GONE:
            raise RecordNotFound(address)
        record = _record(address, reply, owner)
        self._marks.hold(address, record.epoch)
        return record

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        shard, text = shard_of(address)
        keys = self._keys
        with self._calls.reading:
            reply = await self._route.run(
                keys.slots[shard], LOAD, keys.record[shard] + text, self._now(), writing=False
            )
        return None if reply == GONE else _record(address, reply, reply[7].decode())

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`."""
        checked_ttl(ttl)
        shard, text = shard_of(address)
        keys = self._keys
        with self._calls.writing:
            _check_size(snapshot)
            reply = await self._route.run(
                keys.slots[shard],
                SAVE,
                keys.record[shard] + text,
                keys.ends[shard],
                self._now(),
                lifetime(ttl),
                text,
                b"%d" % epoch,
                self._marks.of(address, epoch),
                b"%d" % version,
                b"%d" % (version - 1),
                snapshot,
                self._again,
                writing=True,
            )
        if reply != 1:
            raise self._refused(address, reply, epoch)

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        checked_ttl(ttl)
        shard, text = shard_of(address)
        keys = self._keys
        with self._calls.writing:
            reply = await self._route.run(
                keys.slots[shard],
                TOUCH,
                keys.record[shard] + text,
                keys.ends[shard],
                self._now(),
                lifetime(ttl),
                text,
                b"%d" % epoch,
                self._marks.of(address, epoch),
                writing=True,
            )
        if reply != 1:
            raise self._refused(address, reply, epoch)

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        shard, text = shard_of(address)
        keys = self._keys
        with self._calls.writing:
            reply = await self._route.run(
                keys.slots[shard],
                DELETE,
                keys.record[shard] + text,
                keys.index[shard],
                keys.ends[shard],
                self._now(),
                text,
                b"" if epoch is None else b"%d" % epoch,
                self._marks.of(address, epoch),
                writing=True,
            )
        if epoch is not None and isinstance(reply, list):
            raise self._refused(address, reply, epoch)
        self._marks.forget(address)
        return reply == 1

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`. In the order of a hash of the address, and in that of the tenants."""
        checked_limit(limit)
        if tenant is not None:
            checked_text("tenant", tenant)
        with self._calls.reading:
            return await self._listing.page(self._now(), tenant, cursor, limit)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`. One round trip while nothing has expired."""
        checked_limit(limit, most=None)
        with self._calls.writing:
            return await self._listing.expire(self._now(), limit)

    async def ping(self) -> None:
        """See `SessionStore.ping`. Writes one small key, in a cluster one at each primary."""
        keys = self._keys
        with self._calls.writing:
            for shard in self._route.spread(keys.slots):
                await self._route.run(keys.slots[shard], PROBE, keys.probe[shard], writing=True)

    async def try_out(self) -> None:
        """Write a record, do to it all that is done to records, and delete it: in about one round trip.

        Raises:
            RedisUnavailable: One of that is refused. The record is gone a minute later.
        """
        address = Address.new("probe")
        shard, _ = shard_of(address)
        done = await asyncio.gather(
            self.create(address, tenant="", owner="", snapshot=b"", ttl=60.0),
            self.save(address, epoch=1, version=2, snapshot=b"", ttl=30.0),
            self.touch(address, epoch=1, ttl=60.0),
            self.claim(address, owner=""),
            self.load(address),
            self.delete(address),
            self._listing.overdue(self._now(), shard),
            self._listing.sweep(self._now(), shard, 1),
            self._events.try_out(address),
            return_exceptions=True,
        )
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome

    async def aclose(self) -> None:
        """See `SessionStore.aclose`. Takes at most 5 seconds, whatever Redis does."""
        try:
            await self._calls.close(self._close_timeout)
        finally:
            await self._route.aclose()

    def stats(self) -> dict[str, float]:
        """Calls and failed ones of writing and reading, calls under way, whether Redis is connected, how often it was
        reconnected."""
        return self._calls.stats() | self._route.stats()

    def _now(self) -> bytes:
        return microseconds(self._clock()) if self._own_clock else b""

    @staticmethod
    def _refused(address: Address, reply: Any, epoch: int) -> RecordNotFound | StaleEpoch:
        if reply == GONE:
            return RecordNotFound(address)
        return StaleEpoch(address, held=epoch, stored=int(reply[1]))


def _record(address: Address, fields: Any, owner: str) -> Record:
    expires, epoch, tenant, version, created, updated, snapshot = fields[:7]
    return Record(
        address,
        tenant.decode(),
        int(epoch),
        int(version),
        owner,
        seconds(created),
        seconds(updated),
        seconds(expires),
        snapshot,
    )


def _check_size(snapshot: bytes) -> None:
    if len(snapshot) > MAX_SNAPSHOT:
        raise RedisUnavailable(
            f"a snapshot of {len(snapshot)} bytes is more than the {MAX_SNAPSHOT} that the Redis store keeps; keep "
            "less in the session's state"
        )
