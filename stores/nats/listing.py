"""`Listing`: all records of a bucket, in a stable order, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ..record import Page, RecordInfo
from .bucket import Bucket, Entry
from .records import SHARDS, Head, is_record_key, unpack_head

__all__ = ["Listing"]

_CURSOR = "nats-"

_FEW = 4096
"""Messages up to which all keys are asked for at once."""

_SLICE = 1000


class Listing:
    """Walks over the keys of a bucket in their order, which writes do not change, and reads the records behind them."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def position(self, cursor: str | None) -> str:
        """The key in a cursor, after which the next page starts.

        Raises:
            ValueError: Another store's cursor, or none at all.
        """
        if cursor is None:
            return ""
        key = cursor.removeprefix(_CURSOR)
        if len(cursor) > 600 or not cursor.startswith(_CURSOR) or not is_record_key(key):
            raise ValueError(f"cursor {cursor[:64]!r} is not one of this store's: pass Page.cursor of the page before")
        return key

    async def page(self, now: float, tenant: str | None, after: str, limit: int) -> Page:
        """The next `limit` live records behind the key `after`."""
        found: list[tuple[str, RecordInfo]] = []
        async for keys in self._keys(after, limit + 1 if tenant is None else _SLICE):
            read: list[tuple[str, RecordInfo]] = []
            async for key, _, head in self._heads(keys):
                if head.info.expires > now and tenant in (None, head.info.tenant):
                    read.append((key, head.info))
            found += sorted(read, key=lambda item: item[0])
            if len(found) > limit:
                break
        more = len(found) > limit
        infos = tuple(info for _, info in found[:limit])
        return Page(infos, f"{_CURSOR}{found[limit - 1][0]}" if more else None)

    async def expired(self, now: float) -> AsyncGenerator[tuple[Entry, Head]]:
        """Every record whose end has come."""
        async for keys in self._keys("", _SLICE):
            gone = [(entry, head) async for _, entry, head in self._heads(keys) if head.info.expires <= now]
            for item in gone:
                yield item

    async def _keys(self, after: str, portion: int) -> AsyncGenerator[list[str]]:
        """All keys of records behind `after`, in order, in lists of at most `portion`."""
        few = await self._bucket.count() <= _FEW
        shards = ["*"] if few else [shard for shard in SHARDS if shard >= after[2:4]]
        waiting: list[str] = []
        for shard in shards:
            waiting += [key for key in await self._bucket.keys(f"s.{shard}.*.*") if key > after]
            while len(waiting) >= portion:
                yield waiting[:portion]
                del waiting[:portion]
        if waiting:
            yield waiting

    async def _heads(self, keys: list[str]) -> AsyncGenerator[tuple[str, Entry, Head]]:
        async for key, entry in self._bucket.get_many(keys):
            if entry.value is not None:
                yield key, entry, unpack_head(key, entry.value)
