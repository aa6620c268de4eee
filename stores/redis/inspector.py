"""`RedisInspector`: what is in Redis of a store's keys, without changing them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self

from ..inspection import Layout
from .cluster import ClusterRoute
from .keys import SHARDS, Keys, slot_of
from .opening import FORMAT, check_schema, look_around
from .route import OneServer, Route
from .scripts import Script
from .settings import RedisSettings

__all__ = ["RedisInspector"]

_FIND = Script.of(
    1,
    """
-- schema
return redis.call('HMGET', KEYS[1], 'format', 'shards', 'id')
""",
)

_RECORDS = Script.of(
    1,
    """
-- index; what keys of records begin with, from, how many
local members = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[3])
local bytes, from = 0, ''
for _, member in ipairs(members) do
  local address = string.sub(member, string.find(member, '\\0', 1, true) + 1)
  bytes = bytes + redis.call('HSTRLEN', ARGV[1] .. address, 's')
  from = '(' .. member
end
if #members < tonumber(ARGV[3]) then from = '' end
return {from, bytes}
""",
)

_STREAMS = Script.of(
    2,
    """
-- appended, total
return {redis.call('ZCARD', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or 0)}
""",
)

_AT_ONCE = 1000
"""Records that one script looks at."""


class RedisInspector:
    """An `Inspector` of the keys of one prefix. Made by `reach`."""

    def __init__(self, route: Route, settings: RedisSettings) -> None:
        self._route = route
        self._settings = settings
        self._keys = Keys(settings.prefix)

    @classmethod
    async def reach(cls, url: str, *, timeout: float) -> Self:
        """Connect. Raises as `RedisStore.from_url`."""
        settings = RedisSettings.from_url(url)
        make = ClusterRoute if settings.mode == "cluster" else OneServer
        route: Route = make(settings, (_FIND, _RECORDS, _STREAMS), name="understudy-store-inspector", timeout=timeout)
        try:
            await route.open(timeout)
        except BaseException:
            await route.aclose()
            raise
        return cls(route, settings)

    async def look(self) -> Layout:
        """See `Inspector.look`."""
        keys, prefix = self._keys, self._settings.prefix
        found = await self._route.run(slot_of(keys.schema), _FIND, keys.schema, writing=False)
        there = any(field is not None for field in found)
        if there:
            check_schema(found, prefix)
        return Layout(
            f"Redis keys {prefix}:* at {self._settings.where}",
            int(found[0]) if there else None,
            FORMAT,
            (f"hash {keys.schema.decode()}, {SHARDS} shards",) if there else (),
            () if there else (f"HSET {keys.schema.decode()} format {FORMAT} shards {SHARDS} id (16 random digits)",),
            await look_around(self._route, self._settings),
        )

    async def sizes(self) -> Mapping[str, int]:
        """See `Inspector.sizes`. What Redis needs around the records, 1 to 2 KB each, is not told."""
        snapshots = await asyncio.gather(*(self._snapshots(shard) for shard in range(SHARDS)))
        keys = self._keys
        streams = await asyncio.gather(
            *(
                self._route.run(keys.slots[shard], _STREAMS, keys.appended[shard], keys.total[shard], writing=False)
                for shard in range(SHARDS)
            )
        )
        return {
            "snapshot_bytes": sum(snapshots),
            "streams": sum(count for count, _ in streams),
            "event_bytes": sum(total for _, total in streams),
        }

    async def aclose(self) -> None:
        """See `Inspector.aclose`."""
        await self._route.aclose()

    async def _snapshots(self, shard: int) -> int:
        keys, total, beginning = self._keys, 0, b"-"
        while beginning:
            beginning, found = await self._route.run(
                keys.slots[shard],
                _RECORDS,
                keys.index[shard],
                keys.record[shard],
                beginning,
                b"%d" % _AT_ONCE,
                writing=False,
            )
            total += found
        return total
