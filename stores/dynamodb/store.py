"""`DynamoStore`: records in a table of Amazon DynamoDB, for the nodes of a cluster."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from ..address import Address
from ..arguments import checked_limit, checked_text, checked_ttl
from ..calls import Calls
from ..errors import RecordExists, RecordNotFound, StaleEpoch, StoreCorrupt
from ..event_log import EventLogBounds
from ..record import Page, Record
from . import expressions
from .asking import Asking, ConditionFailed
from .bodies import Bodies
from .client import Client, connect
from .errors import DynamoRefused, DynamoUnavailable
from .items import Item, Parts, info_of, item_of, key, latest, lives, record_of
from .listing import Listing
from .opening import Table, look_around, ping
from .settings import DynamoSettings

__all__ = ["DynamoStore"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 10
"""Times that a call on a large snapshot begins anew, when others save it in the same moment."""

_MARGIN = 300.0
"""Seconds: a clock that is further off than this is not the time, and DynamoDB's own sweeping does not go by it."""

MAX_KNOWN = 10_000
"""Records of which it is remembered that their snapshots are in parts. Of others it is learnt at a refusal."""


class DynamoStore:
    """A `SessionStore` in DynamoDB: shared by all nodes that name the same table in the same region.

    Each call is one request, which compares and writes in one step, so DynamoDB itself lets one of two writers win;
    what is there comes back with a refusal. While DynamoDB is away calls raise `StoreUnavailable`; nothing needs a
    restart.

    Made by `open`, on the event loop that uses it. A cancelled call may still take effect. It has no event log.
    """

    shared = True

    def __init__(
        self,
        client: Client,
        ask: Asking,
        table: Table,
        clock: Callable[[], float],
        *,
        max_calls: int = 10_000,
        close_timeout: float = 5.0,
    ) -> None:
        self._client = client
        self._ask = ask
        self._table = table
        self._clock = clock
        self._close_timeout = close_timeout
        self._calls = Calls(max_calls, "DynamoDB", DynamoUnavailable)
        self._bodies = Bodies(ask)
        self._listing = Listing(ask, self._bodies)
        self._parts: dict[Address, Parts] = {}

    @property
    def identity(self) -> str:
        """What tells this store from others, whatever URLs lead to it; a copy of the table has another."""
        return self._table.identity

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the table and the clock is not as it should be; logged when the store was opened."""
        return self._table.warnings

    @classmethod
    async def open(
        cls,
        settings: DynamoSettings,
        *,
        clock: Callable[[], float] = time.time,
        timeout: float = 5.0,
        max_calls: int = 10_000,
    ) -> Self:
        """Connect, and look at the table; it is not made. What is not as it should be is logged as warnings.

        Args:
            clock: Seconds since the Unix epoch.
            timeout: Seconds that a request may take, with its wait for a connection and its repeats.
            max_calls: At this many calls under way the next raises `StoreUnavailable`.

        Raises:
            DynamoSettingsError: No such profile, or no region.
            DynamoRefused, DynamoUnavailable: No such table, another key, no credentials, no permission, nobody there;
                each with what to do.
            StoreVersionError, StoreCorrupt: The table is of a newer understudy, or something else's.
        """
        client = await connect(settings, timeout=timeout)
        try:
            ask = Asking(client, settings.table, connections=settings.connections, timeout=timeout)
            table = await look_around(ask, client.where)
        except BaseException:
            await client.aclose()
            raise
        for warning in table.warnings:
            logger.warning("%s", warning)
        return cls(client, ask, table, clock, max_calls=max_calls)

    @classmethod
    async def from_url(
        cls, url: str, *, clock: Callable[[], float] = time.time, event_bounds: EventLogBounds | None = None
    ) -> Self:
        """From a URL, as `DynamoSettings.from_url` takes it; there is no event log to be bounded. Raises as that and
        `open`."""
        return await cls.open(DynamoSettings.from_url(url), clock=clock)

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`."""
        checked_ttl(ttl)
        checked_text("tenant", tenant)
        checked_text("owner", owner)
        now = self._clock()
        record = Record(address, tenant, 1, 1, owner, now, now, latest(now + ttl), snapshot)
        token = secrets.token_bytes(9)
        with self._calls.writing:
            body = await self._bodies.place(address, snapshot, record.expires)
            try:
                await self._ask("PutItem", writes=True, **expressions.create(item_of(record, token, body), now))
            except ConditionFailed as failed:
                if not (failed.again and _is_work_of(token, failed.item)):
                    await self._drop(address, body)
                    raise RecordExists(address) from None
            self._remember(address, body)
            return record

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        """See `AdoptsRecords.adopt`."""
        address = record.address
        with self._calls.writing:
            now = self._clock()
            body = await self._bodies.place(address, record.snapshot, record.expires)
            item = item_of(record, secrets.token_bytes(9), body)
            try:
                answer = await self._ask("PutItem", writes=True, **expressions.adopt(item, over or (0, 0), now))
            except ConditionFailed as failed:
                there = None if failed.item is None else info_of(failed.item)
                if failed.item is None or Parts.of(failed.item) != body:
                    await self._drop(address, body)
                if there is None or (there.epoch, there.version) != (record.epoch, record.version):
                    raise RecordExists(address) from None
                return
            self._remember(address, body)
            old = Parts.of(answer["Attributes"]) if answer.get("Attributes") else None
            if old is not None and old != body:
                await self._bodies.discard(address, old)

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`. One request for each part more where the snapshot is in parts."""
        checked_text("owner", owner)
        with self._calls.writing:
            for _ in range(_ATTEMPTS):
                now = self._clock()
                token = secrets.token_bytes(9)
                try:
                    answer = await self._ask(
                        "UpdateItem", writes=True, **expressions.claim(key(address), owner, token, now)
                    )
                    item: Item = answer["Attributes"]
                except ConditionFailed as failed:
                    if failed.item is None or not _is_work_of(token, failed.item) or not lives(failed.item, now):
                        raise self._gone(address, failed.item) from None
                    item = failed.item
                try:
                    record = await self._whole(address, item)
                except DynamoUnavailable as error:
                    # The epoch was raised, whatever became of the parts.
                    error.outcome_unknown = True
                    raise
                if record is not None:
                    return record
                # Another has claimed and saved it since, and so holds a higher epoch than this.
            raise _contended(address)

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        with self._calls.reading:
            for _ in range(_ATTEMPTS):
                answer = await self._ask("GetItem", writes=False, **expressions.load(key(address)))
                item = answer.get("Item")
                if item is None or info_of(item).expires <= self._clock():
                    return None
                record = await self._whole(address, item)
                if record is not None:
                    return record
            raise _contended(address)

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`."""
        checked_ttl(ttl)
        now = self._clock()
        expires = latest(now + ttl)
        with self._calls.writing:
            body = await self._bodies.place(address, snapshot, expires)
            before = self._parts.get(address)
            for _ in range(_ATTEMPTS):
                request = expressions.save(key(address), epoch, version, body, before, now=now, expires=expires)
                try:
                    await self._ask("UpdateItem", writes=True, **request)
                except DynamoRefused as error:
                    if not error.outcome_unknown:
                        await self._drop(address, body)
                    raise
                except ConditionFailed as failed:
                    try:
                        item = self._fenced(address, failed.item, epoch, now)
                    except (RecordNotFound, StaleEpoch):
                        await self._drop(address, body)
                        raise
                    stored = info_of(item).version
                    there = Parts.of(item)
                    if stored == version:
                        if there != body:
                            await self._drop(address, body)
                        return
                    if stored != version - 1:
                        await self._drop(address, body)
                        raise StaleEpoch(address, held=epoch, stored=epoch) from None
                    before = there
                    continue
                self._remember(address, body)
                if before is not None:
                    await self._bodies.discard(address, before)
                return
            raise _contended(address)

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`. One request for each part more where the snapshot is in parts."""
        checked_ttl(ttl)
        now = self._clock()
        expires = latest(now + ttl)
        with self._calls.writing:
            parts = self._parts.get(address)
            for _ in range(_ATTEMPTS):
                if parts is not None:
                    # First, so that the record never outlives them.
                    await self._bodies.keep(address, parts, expires)
                try:
                    await self._ask(
                        "UpdateItem",
                        writes=True,
                        **expressions.touch(key(address), epoch, parts, now=now, expires=expires),
                    )
                    return
                except ConditionFailed as failed:
                    parts = Parts.of(self._fenced(address, failed.item, epoch, now))
            raise _contended(address)

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`."""
        now = self._clock()
        with self._calls.writing:
            parts = self._parts.pop(address, None)
            for _ in range(_ATTEMPTS):
                try:
                    await self._ask("DeleteItem", writes=True, **expressions.delete(key(address), epoch, parts, now))
                except ConditionFailed as failed:
                    if failed.item is None and failed.again:
                        raise DynamoUnavailable(
                            f"{address} is gone after a connection broke: by this call, or before it",
                            outcome_unknown=True,
                        ) from None
                    if failed.item is None or not lives(failed.item, now):
                        return False
                    info = info_of(failed.item)
                    if epoch is not None and info.epoch != epoch:
                        raise StaleEpoch(address, held=epoch, stored=info.epoch) from None
                    parts = Parts.of(failed.item)
                    continue
                if parts is not None:
                    await self._bodies.discard(address, parts)
                return True
            raise _contended(address)

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`. In the order of a hash of the address. With `tenant` it reads the records of all."""
        checked_limit(limit)
        if tenant is not None:
            checked_text("tenant", tenant)
        after = self._listing.position(cursor)
        with self._calls.reading:
            return await self._listing.page(self._clock(), tenant, after, limit)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`. Costs nothing where the table's time to live is on and `clock` tells the time."""
        checked_limit(limit, most=None)
        with self._calls.writing:
            now = self._clock()
            if self._table.sweeps and abs(now - time.time()) < _MARGIN:
                return 0
            return await self._listing.expire(now, limit)

    async def ping(self) -> None:
        """See `SessionStore.ping`. Writes one small item."""
        with self._calls.writing:
            await ping(self._ask)

    async def aclose(self) -> None:
        """See `SessionStore.aclose`. Takes at most 7 seconds, whatever DynamoDB does."""
        try:
            await self._calls.close(self._close_timeout)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._client.aclose()

    def stats(self) -> dict[str, float]:
        """Calls and failed ones of writing and reading, calls under way, requests that were sent, those that were
        throttled, and repeats."""
        ask = self._ask
        return self._calls.stats() | {
            "requests": ask.requests,
            "requests_throttled": ask.throttled,
            "requests_repeated": ask.repeats,
        }

    async def _whole(self, address: Address, item: Item) -> Record | None:
        """The record of an item with its snapshot; None if that has been replaced since.

        Raises:
            StoreCorrupt: The item still names parts that are not there.
        """
        parts = Parts.of(item)
        if parts is None:
            self._parts.pop(address, None)
            return record_of(item)
        snapshot = await self._bodies.read(address, parts)
        if snapshot is not None:
            self._remember(address, parts)
            return record_of(item, snapshot)
        answer = await self._ask("GetItem", writes=False, **expressions.load(key(address)))
        if "Item" in answer and Parts.of(answer["Item"]) == parts:
            raise StoreCorrupt(f"parts of the snapshot of {address} are missing in {self._client.where}")
        return None

    def _fenced(self, address: Address, item: Item | None, epoch: int, now: float) -> Item:
        if item is None or info_of(item).expires <= now:
            raise RecordNotFound(address)
        stored = info_of(item).epoch
        if stored != epoch:
            raise StaleEpoch(address, held=epoch, stored=stored)
        return item

    @staticmethod
    def _gone(address: Address, item: Item | None) -> RecordNotFound:
        if item is not None:
            info_of(item)  # what is no record of ours is said to be none
        return RecordNotFound(address)

    async def _drop(self, address: Address, body: bytes | Parts) -> None:
        if isinstance(body, Parts):
            await self._bodies.discard(address, body)

    def _remember(self, address: Address, body: bytes | Parts) -> None:
        known = self._parts
        known.pop(address, None)
        if isinstance(body, Parts):
            if len(known) >= MAX_KNOWN:
                del known[next(iter(known))]
            known[address] = body


def _is_work_of(token: bytes, item: Item | None) -> bool:
    return item is not None and item.get("claim", {}).get("B") == token


def _contended(address: Address) -> DynamoUnavailable:
    return DynamoUnavailable(f"{address}: others write this record all the time; {_ATTEMPTS} attempts came too late")
