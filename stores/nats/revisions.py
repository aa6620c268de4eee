"""`Revisions`: the records of a bucket as this node last saw them, and the compare-and-set that replaces one."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from ..address import Address
from ..record import RecordInfo
from .bodies import Bodies
from .bucket import Bucket, WrongRevision
from .errors import NatsUnavailable
from .records import Head, Parts, pack_head, record_key, unpack_head
from .turns import Turns

__all__ = ["MARGIN", "Revisions", "Stored"]

KNOWN = 10_000
"""Records whose revision is kept, so that a save is one round trip. Those of longest ago are forgotten."""

MARGIN = 60.0
"""Seconds that NATS keeps a record beyond its end, so that a node whose clock is slow finds it expired and not gone."""


class Stored(NamedTuple):
    """A record and its revision; 0 and None where there is nothing, None behind a delete marker."""

    revision: int
    head: Head | None


class Revisions:
    """Reads records, and writes each in the place of one that was read."""

    def __init__(self, bucket: Bucket, bodies: Bodies) -> None:
        self._bucket = bucket
        self._bodies = bodies
        self.conflicts = 0
        self._known: OrderedDict[Address, Stored] = OrderedDict()
        self._turns: Turns[Address] = Turns(bucket.timeout)

    def known(self, address: Address) -> Stored | None:
        """The record as this node wrote it last, without its snapshot; another node may have written it since."""
        return self._known.get(address)

    def forget(self, address: Address) -> None:
        """Have the next writer read the record first."""
        self._known.pop(address, None)

    def alone(self, address: Address) -> AbstractAsyncContextManager[None]:
        """Around each write: writers of one record at one node take turns, so that only those of other nodes can be in
        each other's way."""
        return self._turns.alone(address)

    async def read(self, address: Address) -> Stored:
        """What NATS holds now."""
        key = record_key(address)
        entry = await self._bucket.get(key)
        if entry is None:
            return Stored(0, None)
        return Stored(entry.revision, None if entry.value is None else unpack_head(key, entry.value))

    async def write(self, info: RecordInfo, body: bytes | Parts, before: Stored, now: float) -> Head:
        """Put the record in the place of `before`; raises `WrongRevision` if that is no longer there."""
        address = info.address
        self._known.pop(address, None)
        ttl = max(info.expires - now, 0.0) + MARGIN
        head, written = await self._bodies.placed(info, body, ttl)
        try:
            revision = await self._bucket.put(record_key(address), pack_head(head), expected=before.revision, ttl=ttl)
        except WrongRevision:
            if written:
                await self._bodies.discard(head)
            raise
        except NatsUnavailable as error:
            if written and not error.outcome_unknown:
                await self._bodies.discard(head)
            raise
        if before.head is not None and before.head.body != head.body:
            await self._bodies.discard(before.head)
        self._remember(address, Stored(revision, Head(info, b"") if isinstance(head.body, bytes) else head))
        return head

    async def after_conflict(self, address: Address, attempt: int) -> Stored:
        """What NATS holds after a write that met another's, a little later from attempt to attempt."""
        self.conflicts += 1
        if attempt:
            await asyncio.sleep(random.uniform(0, 0.001 * min(attempt, 20)))
        return await self.read(address)

    def _remember(self, address: Address, stored: Stored) -> None:
        self._known[address] = stored
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
