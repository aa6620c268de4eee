"""`PostgresStore`: records in PostgreSQL, for the nodes of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Self

from ..address import Address
from ..arguments import checked_limit, checked_text, checked_ttl
from ..errors import AddressError, StoreVersionError
from ..event_log import EventLogBounds
from ..record import Page, Record
from . import records
from .connection import Failed, connect
from .durability import durability_warnings
from .errors import PostgresRefused
from .events import PostgresEventLog
from .lanes import Lanes
from .schema import SCHEMA_VERSION, open_schema, quoted
from .settings import PostgresSettings

__all__ = ["PostgresStore"]

_CURSOR = "postgresql-"

_SWEEP = 1000
"""Records that one statement of a sweep looks at."""


class PostgresStore:
    """A `SessionStore` in PostgreSQL, 13 or later: shared by all nodes that name the same database and schema.

    Each call is one statement, and those that wait together share one. A write compares the epoch and writes in the
    same statement, so PostgreSQL itself lets one of two writers win. Works behind a PgBouncer in transaction mode as
    it is. While PostgreSQL is away every call raises `StoreUnavailable` at once; the store comes back by itself.

    Made by `open`, on the event loop that uses it. A cancelled call may still take effect.
    """

    shared = True

    def __init__(
        self,
        lanes: Lanes,
        settings: PostgresSettings,
        clock: Callable[[], float],
        *,
        identity: str,
        warnings: tuple[str, ...],
        event_bounds: EventLogBounds,
        close_timeout: float = 5.0,
    ) -> None:
        self._lanes = lanes
        self._clock = clock
        self._identity = identity
        self._warnings = warnings
        self._close_timeout = close_timeout
        schema = quoted(settings.schema)
        self._records = records.Records(schema)
        self._events = PostgresEventLog(lanes, schema, clock, event_bounds)

    @property
    def events(self) -> PostgresEventLog:
        """The event log in the same schema; closed with the store."""
        return self._events

    @property
    def identity(self) -> str:
        """What tells this store from others, whatever URLs lead to it; a copy of the database has the same."""
        return f"PostgreSQL tables {self._identity}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the server's settings may cost acknowledged writes; logged when the store was opened."""
        return self._warnings

    @classmethod
    async def open(
        cls,
        settings: PostgresSettings,
        *,
        clock: Callable[[], float] = time.time,
        name: str = "understudy store",
        timeout: float = 5.0,
        max_calls: int = 10_000,
        event_bounds: EventLogBounds | None = None,
    ) -> Self:
        """Connect, and find the tables or make them.

        Args:
            clock: Seconds since the Unix epoch.
            name: What the server shows as the connections' `application_name`.
            timeout: Seconds that a call waits for a connection, and then for its answer; no call takes longer than
                three times this.
            max_calls: At this many waiting calls the next raises `StoreUnavailable`.
            event_bounds: What `events` keeps; all nodes give the same.

        Raises:
            PostgresUnavailable: No server answers, or it refuses us, or what the role may not do; each says which.
            StoreVersionError, StoreCorrupt: The tables are of a newer understudy, or not ours.
        """
        try:
            connection = await connect(settings, name=name, timeout=timeout)
            try:
                tables = await open_schema(connection, settings)
                warnings = await durability_warnings(connection, settings)
            except BaseException:
                connection.terminate()
                raise
        except Failed as failed:
            raise failed.failure.error() from failed
        lanes = Lanes(
            partial(connect, settings, name=name, timeout=timeout),
            most=settings.connections,
            timeout=timeout,
            max_queued=max_calls,
        )
        await lanes.start(connection)
        return cls(
            lanes,
            settings,
            clock,
            identity=tables.identity,
            warnings=warnings,
            event_bounds=event_bounds or EventLogBounds(),
        )

    @classmethod
    async def from_url(
        cls, url: str, *, clock: Callable[[], float] = time.time, event_bounds: EventLogBounds | None = None
    ) -> Self:
        """From what `PostgresSettings.from_url` takes.

        Raises:
            StoreURLError: It cannot be understood. Otherwise as `open`.
        """
        return await cls.open(PostgresSettings.from_url(url), clock=clock, event_bounds=event_bounds)

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`."""
        now = self._clock()
        expires = now + checked_ttl(ttl)
        checked_text("tenant", tenant)
        checked_text("owner", owner)
        record = Record(address, tenant, 1, 1, owner, now, now, expires, snapshot)
        asked = records.Create(record)
        return await self._lanes.submit(self._records.create, asked, key=address, size=len(snapshot))

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        """See `AdoptsRecords.adopt`."""
        asked = records.Adopt(record, over or records.NOTHING, self._clock())
        await self._lanes.submit(self._records.adopt, asked, key=record.address, size=len(record.snapshot))

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`."""
        asked = records.Claim(address, checked_text("owner", owner), self._clock())
        return await self._lanes.submit(self._records.claim, asked, key=address)

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        return await self._lanes.submit(self._records.load, records.Load(address, self._clock()), key=address)

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`."""
        now = self._clock()
        asked = records.Save(address, epoch, version, snapshot, now, now + checked_ttl(ttl))
        await self._lanes.submit(self._records.save, asked, key=address, size=len(snapshot))

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        now = self._clock()
        asked = records.Touch(address, epoch, now, now + checked_ttl(ttl))
        await self._lanes.submit(self._records.touch, asked, key=address)

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        asked = records.Delete(address, epoch, self._clock())
        return await self._lanes.submit(self._records.delete, asked, key=address)

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`. In the order of their addresses."""
        after = _position(cursor)
        asked = records.Page(tenant, after, self._clock(), checked_limit(limit) + 1)
        found = await self._lanes.submit(self._records.page, asked)
        page = tuple(found[:limit])
        return Page(page, f"{_CURSOR}{page[-1].address}" if len(found) > limit else None)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`. Several nodes may sweep at once."""
        checked_limit(limit, most=None)
        now = self._clock()
        swept = 0
        while swept < limit:
            some = min(limit - swept, _SWEEP)
            due, gone = await self._lanes.submit(self._records.expire, records.Expire(now, some))
            swept += gone
            if due < some:
                break
        return swept

    async def ping(self) -> None:
        """See `SessionStore.ping`. Writes a number over the one before."""
        version = await self._lanes.submit(self._records.ping, self._clock())
        if version is None:
            raise PostgresRefused("the store's table meta has lost its row: restore it, or the whole schema")
        if version != SCHEMA_VERSION:
            error = StoreVersionError(
                f"the store's tables have version {version} now, and this understudy knows {SCHEMA_VERSION}: another "
                "has brought them forward; upgrade this one"
            )
            raise PostgresRefused(str(error)) from error

    async def aclose(self) -> None:
        """See `SessionStore.aclose`. Takes at most 7 seconds, whatever PostgreSQL does."""
        await self._lanes.aclose(self._close_timeout)

    def stats(self) -> dict[str, float]:
        """`write_*` and `read_*`: calls, statements, failed statements, the largest group. Calls that wait, connections
        that are open, and how many were made beyond the first."""
        return self._lanes.stats()


def _position(cursor: str | None) -> Address:
    if cursor is None:
        return Address("", "")
    if cursor.startswith(_CURSOR) and len(cursor) < 256:
        try:
            return Address.parse(cursor.removeprefix(_CURSOR))
        except AddressError:
            pass
    raise ValueError(f"cursor {cursor[:64]!r} is not one of this store's: pass Page.cursor of the page before")
