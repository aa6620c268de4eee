"""`MemoryStore`: records in a dict, for tests and for one process whose sessions may die with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from .address import Address
from .arguments import checked_limit, checked_text, checked_ttl, cursor_number
from .errors import RecordExists, RecordNotFound, StaleEpoch, StoreUnavailable
from .event_log import EventLogBounds
from .memory_events import MemoryEventLog
from .record import Page, Record, RecordInfo

__all__ = ["MemoryStore"]

_CURSOR = "memory-"


class _Entry:
    """A record being written in place: a save is on the request path, a new frozen `Record` is not free."""

    __slots__ = ("created", "epoch", "expires", "number", "owner", "snapshot", "tenant", "updated", "version")

    def __init__(self, number: int, tenant: str, owner: str, now: float, expires: float, snapshot: bytes) -> None:
        self.number = number
        self.tenant = tenant
        self.epoch = 1
        self.version = 1
        self.owner = owner
        self.created = now
        self.updated = now
        self.expires = expires
        self.snapshot = snapshot

    def record(self, address: Address) -> Record:
        return Record(
            address,
            self.tenant,
            self.epoch,
            self.version,
            self.owner,
            self.created,
            self.updated,
            self.expires,
            self.snapshot,
        )

    def info(self, address: Address) -> RecordInfo:
        return RecordInfo(
            address, self.tenant, self.epoch, self.version, self.owner, self.created, self.updated, self.expires
        )


class MemoryStore:
    """A `SessionStore` in this process: as fast as a store can be, and gone with the process.

    No method waits, so none can be cancelled half way. Use it on one event loop only.

    Args:
        clock: Seconds since the Unix epoch.
        max_records: At this many live records `create` raises `StoreUnavailable`.
        max_bytes: At this many bytes of snapshots `create` and `save` raise `StoreUnavailable`.
        event_bounds: What `events` keeps.
    """

    shared = False

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        max_records: int = 1_000_000,
        max_bytes: int = 4 * 1024**3,
        event_bounds: EventLogBounds | None = None,
    ) -> None:
        self._clock = clock
        self._max_records = max_records
        self._max_bytes = max_bytes
        # Insertion order is the order of `list`: an entry's number only grows along the dict.
        self._entries: dict[Address, _Entry] = {}
        self._last_number = 0
        self._bytes = 0
        self._soonest = float("inf")
        self._closed = False
        self._events = MemoryEventLog(clock, event_bounds)

    @property
    def events(self) -> MemoryEventLog:
        """The event log that goes with these records; closed with the store."""
        return self._events

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`. Raises `StoreUnavailable` at either bound."""
        expires = self._now() + checked_ttl(ttl)
        checked_text("tenant", tenant)
        checked_text("owner", owner)
        now = self._now()
        entry = self._entries.get(address)
        if entry is not None:
            if entry.expires > now:
                raise RecordExists(address)
            self._remove(address, entry)
        self._make_room(now, len(snapshot))
        self._last_number += 1
        entry = _Entry(self._last_number, tenant, owner, now, expires, snapshot)
        self._entries[address] = entry
        self._bytes += len(snapshot)
        self._soonest = min(self._soonest, expires)
        return entry.record(address)

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        """See `AdoptsRecords.adopt`. Raises `StoreUnavailable` at either bound."""
        now = self._now()
        entry = self._entries.get(record.address)
        if entry is not None:
            if entry.expires > now and (entry.epoch, entry.version) != over:
                if (entry.epoch, entry.version) == (record.epoch, record.version):
                    return
                raise RecordExists(record.address)
            if entry.expires <= now:
                self._remove(record.address, entry)
                entry = None
        self._make_room(now, len(record.snapshot))
        if entry is None:
            self._last_number += 1
            number = self._last_number
        else:
            # It keeps its place in a walk.
            number = entry.number
            self._bytes -= len(entry.snapshot)
        entry = _Entry(number, record.tenant, record.owner, record.created, record.expires, record.snapshot)
        entry.epoch, entry.version, entry.updated = record.epoch, record.version, record.updated
        self._entries[record.address] = entry
        self._bytes += len(record.snapshot)
        self._soonest = min(self._soonest, record.expires)

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`."""
        entry = self._live(address, self._now())
        entry.owner = checked_text("owner", owner)
        entry.epoch += 1
        return entry.record(address)

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        now = self._now()
        entry = self._entries.get(address)
        return None if entry is None or entry.expires <= now else entry.record(address)

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`. Raises `StoreUnavailable` at `max_bytes`."""
        now = self._now()
        expires = now + checked_ttl(ttl)
        entry = self._live(address, now)
        if entry.epoch != epoch:
            raise StaleEpoch(address, held=epoch, stored=entry.epoch)
        if entry.version != version - 1:
            if entry.version == version:
                return
            raise StaleEpoch(address, held=epoch, stored=entry.epoch)
        size = self._bytes + len(snapshot) - len(entry.snapshot)
        if size > self._max_bytes and len(snapshot) > len(entry.snapshot):
            raise self._full(f"snapshots fill {self._bytes} of {self._max_bytes} bytes")
        self._bytes = size
        entry.snapshot = snapshot
        entry.version = version
        entry.updated = now
        entry.expires = expires
        if expires < self._soonest:
            self._soonest = expires

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        now = self._now()
        expires = now + checked_ttl(ttl)
        entry = self._live(address, now)
        if entry.epoch != epoch:
            raise StaleEpoch(address, held=epoch, stored=entry.epoch)
        entry.expires = expires
        self._soonest = min(self._soonest, expires)

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        now = self._now()
        entry = self._entries.get(address)
        if entry is None or entry.expires <= now:
            return False
        if epoch is not None and entry.epoch != epoch:
            raise StaleEpoch(address, held=epoch, stored=entry.epoch)
        self._remove(address, entry)
        return True

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`. Oldest first. Walks past all records before the cursor: about 3 ms per 100,000."""
        now = self._now()
        checked_limit(limit)
        after = cursor_number(cursor, _CURSOR)
        found = list(
            islice(
                (
                    (entry.number, entry.info(address))
                    for address, entry in self._entries.items()
                    if entry.number > after and entry.expires > now and (tenant is None or entry.tenant == tenant)
                ),
                limit + 1,
            )
        )
        more = len(found) > limit
        found = found[:limit]
        return Page(tuple(info for _, info in found), f"{_CURSOR}{found[-1][0]:x}" if more else None)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`. Free while nothing can have expired, one walk over all records otherwise."""
        now = self._now()
        return self._sweep(now, checked_limit(limit, most=None))

    async def ping(self) -> None:
        """Return, unless the store is closed."""
        self._now()

    async def aclose(self) -> None:
        """Forget everything."""
        self._closed = True
        self._events.close()
        self._entries.clear()
        self._bytes = 0

    def stats(self) -> dict[str, float]:
        """Records held (expired ones that wait for a sweep included) and the bytes of their snapshots."""
        return {"records": len(self._entries), "snapshot_bytes": self._bytes}

    def _now(self) -> float:
        if self._closed:
            raise StoreUnavailable("the memory store is closed", outcome_unknown=False)
        return self._clock()

    def _live(self, address: Address, now: float) -> _Entry:
        entry = self._entries.get(address)
        if entry is None or entry.expires <= now:
            raise RecordNotFound(address)
        return entry

    def _remove(self, address: Address, entry: _Entry) -> None:
        del self._entries[address]
        self._bytes -= len(entry.snapshot)

    def _make_room(self, now: float, size: int) -> None:
        if len(self._entries) < self._max_records and self._bytes + size <= self._max_bytes:
            return
        self._sweep(now, len(self._entries))
        if len(self._entries) >= self._max_records:
            raise self._full(f"it holds {self._max_records} records")
        if self._bytes + size > self._max_bytes:
            raise self._full(f"snapshots fill {self._bytes} of {self._max_bytes} bytes")

    def _full(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the memory store is full: {why}; raise the bound, shorten the lifetime of sessions, or use sqlite:///",
            outcome_unknown=False,
        )

    def _sweep(self, now: float, limit: int) -> int:
        if now < self._soonest:
            return 0
        expired = list(islice((item for item in self._entries.items() if item[1].expires <= now), limit))
        for address, entry in expired:
            self._remove(address, entry)
        if len(expired) < limit:
            self._soonest = min((entry.expires for entry in self._entries.values()), default=float("inf"))
        return len(expired)
