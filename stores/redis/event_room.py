"""`EventRoom`: which streams of an event log have to go, because they are too old or all are too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

from ..errors import StoreUnavailable
from .event_scripts import DROP, LOOK, OLDEST, SWEEP_STREAMS
from .keys import SHARDS, Keys
from .route import Route

__all__ = ["EventRoom"]

Gone = tuple[int, bytes, bytes]
"""A stream's shard, its actor's address and its name."""

_AT_ONCE = 256
"""Streams that are dropped together."""

_LOOKED_AT = 32
"""Streams of each shard that are looked at together for what has to make room."""

_SLACK = 16
"""One part in so many of the bound is made free, so that not every append has to make room again."""


class EventRoom:
    """Keeps the streams of all shards together within `most` bytes.

    Each append says how much its shard holds then; what the shards held when this node has last heard of them is the
    sum that it judges by. No script could: the shards of a cluster lie at different nodes.
    """

    def __init__(self, route: Route, keys: Keys, now: Callable[[], bytes], age: bytes, most: int) -> None:
        """`age`: microseconds after which a stream is too old."""
        self._route = route
        self._keys = keys
        self._now = now
        self._age = age
        self._most = most
        self._totals = [0] * SHARDS
        self._counts = [0] * SHARDS
        self.known_bytes = 0
        self.evicted = 0
        """Streams that have made room for others."""
        self._unheard = 0
        self._making_room = asyncio.Lock()

    async def appended(self, shard: int, total: int, size: int) -> None:
        """Take note of what `shard` holds after an append of `size` bytes, and make room if all is too much.

        What has been appended stands, so that where no room can be made now the next append or sweep does it.
        """
        self.known_bytes += total - self._totals[shard]
        self._totals[shard] = total
        self._unheard += size
        # Others append too: after a quarter of the bound of our own, ask what there is.
        if (self.known_bytes > self._most or self._unheard > self._most // 4) and not self._making_room.locked():
            async with self._making_room:
                with suppress(StoreUnavailable):
                    await self._look()
                    await self._make_room(None)

    async def expire(self, limit: int) -> int:
        """Remove up to `limit` streams that are too old, or too much; how many went."""
        old = await self._look()
        gone = 0
        for shard in range(SHARDS):
            left = old[shard]
            while left > 0 and gone < limit:
                went = await self.sweep(shard, min(limit - gone, 100))
                gone += went
                left = left - went if went else 0
        if gone < limit:
            async with self._making_room:
                if gone:
                    await self._look()
                gone += await self._make_room(limit - gone)
        return gone

    async def drop(self, streams: Iterable[Gone]) -> None:
        """Remove these streams."""
        rest = iter(streams)
        while some := list(islice(rest, _AT_ONCE)):
            await asyncio.gather(*(self._drop(shard, text, name, b"") for shard, text, name in some))

    async def look(self, now: bytes, shard: int) -> tuple[int, int]:
        """How many streams of `shard` are too old, and how many bytes all of it are."""
        keys = self._keys
        old, total = await self._route.run(
            keys.slots[shard], LOOK, keys.appended[shard], keys.total[shard], now, self._age, writing=False
        )
        return old, total

    async def sweep(self, shard: int, limit: int) -> int:
        """Remove up to `limit` streams of `shard` that are too old; how many went."""
        keys = self._keys
        return await self._route.run(
            keys.slots[shard],
            SWEEP_STREAMS,
            keys.appended[shard],
            keys.sizes[shard],
            keys.total[shard],
            self._now(),
            self._age,
            b"%d" % limit,
            keys.stream[shard],
            keys.events[shard],
            keys.names[shard],
            writing=True,
        )

    async def oldest(self, shard: int) -> tuple[list[bytes], list[bytes], int]:
        """Streams of `shard` of longest ago, and the time of each; their sizes; how many there are."""
        keys = self._keys
        members, sizes, count = await self._route.run(
            keys.slots[shard],
            OLDEST,
            keys.appended[shard],
            keys.sizes[shard],
            b"%d" % (_LOOKED_AT - 1),
            writing=False,
        )
        return members, sizes, count

    async def _look(self) -> list[int]:
        """How many streams of each shard are too old; what they hold is noted."""
        now = self._now()
        looked = await asyncio.gather(*(self.look(now, shard) for shard in range(SHARDS)))
        self._totals = [total for _, total in looked]
        self.known_bytes = sum(self._totals)
        self._unheard = 0
        return [old for old, _ in looked]

    async def _make_room(self, limit: int | None) -> int:
        """Remove the streams of longest ago until the rest fits, the newest of all never; how many went."""
        gone = 0
        if self.known_bytes <= self._most:
            return 0
        enough = self._most - self._most // _SLACK
        while self.known_bytes > enough and (limit is None or gone < limit):
            found = await self._oldest()
            # The newest of all is the last that is left.
            victims = found[:-1] if len(found) == sum(self._counts) else found
            chosen: list[tuple[float, int, bytes, int, bytes]] = []
            rest = self.known_bytes - enough
            for victim in victims:
                if rest <= 0 or (limit is not None and gone + len(chosen) >= limit):
                    break
                chosen.append(victim)
                rest -= victim[3]
            if not chosen:
                break
            went = await asyncio.gather(*(self._evict(*victim) for victim in chosen))
            if not any(went):
                await self._look()
                break
            for (_, shard, _, size, _), done in zip(chosen, went, strict=True):
                if done:
                    gone += 1
                    self._totals[shard] -= size
                    self.known_bytes -= size
        self.evicted += gone
        return gone

    async def _oldest(self) -> list[tuple[float, int, bytes, int, bytes]]:
        """The streams of longest ago, in their order, as far as all shards show enough of them: time of the newest
        append, shard, stream, size, time as it was told."""
        found = await asyncio.gather(*(self.oldest(shard) for shard in range(SHARDS)))
        self._counts = [count for _, _, count in found]
        horizon = float("inf")
        streams: list[tuple[float, int, bytes, int, bytes]] = []
        for shard, (members, sizes, count) in enumerate(found):
            for place, size in enumerate(sizes):
                time = members[2 * place + 1]
                streams.append((float(time), shard, members[2 * place], int(size), time))
            if count > len(sizes):
                horizon = min(horizon, float(members[-1]))
        return sorted(stream for stream in streams if stream[0] <= horizon)

    async def _evict(self, _: float, shard: int, stream: bytes, size: int, time: bytes) -> bool:
        name, _slash, text = stream.partition(b"/")
        return await self._drop(shard, text, name, time)

    async def _drop(self, shard: int, text: bytes, name: bytes, time: bytes) -> bool:
        keys = self._keys
        stream = name + b"/" + text
        done = await self._route.run(
            keys.slots[shard],
            DROP,
            keys.stream[shard] + stream,
            keys.events[shard] + stream,
            keys.names[shard] + text,
            keys.appended[shard],
            keys.sizes[shard],
            keys.total[shard],
            stream,
            name,
            time,
            writing=True,
        )
        return done == 1
