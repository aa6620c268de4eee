"""`Listing`: pages of records, shard by shard, and the sweep over what has expired."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

from ..address import Address
from ..record import Page, RecordInfo
from .keys import SHARDS, Keys
from .records import seconds
from .route import Route
from .scripts import OVERDUE, PAGE, SWEEP

__all__ = ["Listing"]

_CURSOR = "redis-"
_MOST_AT_ONCE = 16
"""Shards that are asked at the same time."""


class Listing:
    """Walks a store's indexes. The order: shards, in each the tenants, of each the addresses, by their bytes.

    A record keeps its place as long as it lives, so a walk shows what is there all the time exactly once.
    """

    def __init__(self, route: Route, keys: Keys) -> None:
        self._route = route
        self._keys = keys

    async def page(self, now: bytes, tenant: str | None, cursor: str | None, limit: int) -> Page:
        """The records after `cursor`.

        Raises:
            ValueError: `cursor` is none of ours.
            RedisUnavailable: As `Route.run`.
        """
        begun, after = _read(cursor)
        first, to = (b"-", b"+") if tenant is None else (b"[" + tenant.encode() + b"\0", b"(" + tenant.encode() + b"\1")
        found: list[tuple[int, RecordInfo]] = []
        beginning = first
        if after:
            beginning = b"(" + after if after > first[1:] else first
        shard, width = begun, 1
        while shard < SHARDS and len(found) <= limit:
            shards = range(shard, min(shard + width, SHARDS))
            pages = await asyncio.gather(
                *(self._shard(now, one, beginning if one == begun else first, to, limit + 1) for one in shards)
            )
            for one, (infos, rest) in zip(shards, pages, strict=True):
                found += [(one, info) for info in infos]
                shard = one + 1
                while rest and len(found) <= limit:
                    # A stretch of it was all of records that have gone.
                    infos, rest = await self._shard(now, one, rest, to, limit + 1 - len(found))
                    found += [(one, info) for info in infos]
                if len(found) > limit:
                    break
            width = min(width * 2, _MOST_AT_ONCE)
        more = len(found) > limit
        del found[limit:]
        return Page(tuple(info for _, info in found), _cursor(*found[-1]) if more else None)

    async def expire(self, now: bytes, limit: int) -> int:
        """Remove up to `limit` records that have expired; how many went."""
        overdue = await asyncio.gather(*(self.overdue(now, shard) for shard in range(SHARDS)))
        swept = 0
        for shard in range(SHARDS):
            left = overdue[shard]
            while left > 0 and swept < limit:
                looked, gone = await self.sweep(now, shard, min(limit - swept, 1000))
                swept += gone
                left = left - looked if looked else 0
        return swept

    async def overdue(self, now: bytes, shard: int) -> int:
        """How many records of `shard` the index has as expired; some may have been renewed since."""
        keys = self._keys
        return await self._route.run(keys.slots[shard], OVERDUE, keys.ends[shard], now, writing=False)

    async def sweep(self, now: bytes, shard: int, limit: int) -> tuple[int, int]:
        """Look at up to `limit` of those; how many these were, and how many of them went."""
        keys = self._keys
        looked, gone = await self._route.run(
            keys.slots[shard],
            SWEEP,
            keys.index[shard],
            keys.ends[shard],
            now,
            keys.record[shard],
            b"%d" % limit,
            writing=True,
        )
        return looked, gone

    async def _shard(
        self, now: bytes, shard: int, beginning: bytes, to: bytes, limit: int
    ) -> tuple[list[RecordInfo], bytes]:
        keys = self._keys
        rest, found = await self._route.run(
            keys.slots[shard],
            PAGE,
            keys.index[shard],
            keys.ends[shard],
            now,
            keys.record[shard],
            beginning,
            to,
            b"%d" % limit,
            writing=False,
        )
        infos = [_info(record) for record in found]
        return infos, rest if len(infos) < limit else b""


def _info(fields: list[Any]) -> RecordInfo:
    expires, epoch, tenant, version, created, updated, owner, address = fields
    return RecordInfo(
        Address.parse(address.decode()),
        tenant.decode(),
        int(epoch),
        int(version),
        owner.decode(),
        seconds(created),
        seconds(updated),
        seconds(expires),
    )


def _cursor(shard: int, info: RecordInfo) -> str:
    member = f"{info.tenant}\0{info.address}".encode()
    return _CURSOR + base64.urlsafe_b64encode(bytes([shard]) + member).decode()


def _read(cursor: str | None) -> tuple[int, bytes]:
    if cursor is None:
        return 0, b""
    try:
        if cursor.startswith(_CURSOR) and cursor.isascii():
            raw = base64.b64decode(cursor.removeprefix(_CURSOR), altchars=b"-_", validate=True)
            if raw and raw[0] < SHARDS and b"\0" in raw[1:]:
                return raw[0], raw[1:]
    except binascii.Error:
        pass
    raise ValueError(f"cursor {cursor[:64]!r} is not one of this store's: pass Page.cursor of the page before")
