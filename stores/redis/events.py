"""`RedisEventLog`: streams in Redis, beside the records of a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..address import Address
from ..arguments import checked_limit
from ..calls import Calls
from ..errors import StreamTaken
from ..event_log import STREAM_OVERHEAD, EventLogBounds, LoggedStream
from ..event_rules import checked_after, checked_append, checked_stream
from .event_room import EventRoom
from .event_scripts import APPEND, DROP_ALL, READ, REPEATED
from .keys import Keys, shard_of
from .route import Route

__all__ = ["RedisEventLog"]

LARGEST_APPEND = 128 * 2**20
"""Bytes."""


class RedisEventLog:
    """An `EventLog` in Redis, as durable as the store's records. An append is one script, and so one round trip.

    The streams of an actor lie where its record does. Beyond `max_total_bytes` the streams of longest ago go, within
    the append that brings this node to know of it, and at `expire`: what other nodes append may exceed the bound until
    then.

    Made by `RedisStore`.
    """

    def __init__(
        self,
        route: Route,
        keys: Keys,
        calls: Calls,
        now: Callable[[], bytes],
        bounds: EventLogBounds,
        *,
        replicated: bool = False,
    ) -> None:
        self._route = route
        self._keys = keys
        self._calls = calls
        self._now = now
        self._bounds = bounds
        self._most_events = b"%d" % bounds.max_events
        self._most_bytes = b"%d" % bounds.max_bytes
        self._age = b"%d" % round(min(bounds.max_age, 1e9) * 1e6)
        self._replicated = b"1" if replicated else b"0"
        self._room = EventRoom(route, keys, now, self._age, bounds.max_total_bytes)
        self._last_stamp = 0
        self._appends = 0
        self._appended_events = 0
        self._trimmed_events = 0

    @property
    def bounds(self) -> EventLogBounds:
        """See `EventLog.bounds`."""
        return self._bounds

    async def append(
        self,
        address: Address,
        stream: str,
        first: int,
        events: Sequence[bytes],
        *,
        head: bytes,
        writer: str,
        ends: bool = False,
    ) -> None:
        """See `EventLog.append`."""
        bounds = self._bounds
        size = checked_append(stream, first, events, head, writer, most=min(bounds.max_total_bytes, LARGEST_APPEND))
        count = len(events)
        sent = _newest(events, size, bounds) if count > bounds.max_events or size > bounds.max_bytes else events
        shard, text = shard_of(address)
        keys, name = self._keys, stream.encode()
        whole = name + b"/" + text
        with self._calls.writing:
            reply = await self._route.run(
                keys.slots[shard],
                APPEND,
                keys.stream[shard] + whole,
                keys.events[shard] + whole,
                keys.names[shard] + text,
                keys.appended[shard],
                keys.sizes[shard],
                keys.total[shard],
                self._stamp(),
                whole,
                name,
                b"%d" % first,
                b"%d" % count,
                b"%d" % (count - len(sent)),
                writer.encode(),
                b"1" if ends else b"",
                head,
                self._most_events,
                self._most_bytes,
                self._age,
                self._replicated,
                *sent,
                writing=True,
            )
            if reply == REPEATED:
                return
            if reply[0]:
                raise StreamTaken(address, stream, first=first, last=int(reply[1]), ended=reply[2] == b"1")
            self._appends += 1
            self._appended_events += count
            self._trimmed_events += reply[2]
            await self._room.appended(shard, reply[1], size + STREAM_OVERHEAD)

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`."""
        checked_after(after)
        shard, text = shard_of(address)
        keys = self._keys
        whole = checked_stream(stream).encode() + b"/" + text
        with self._calls.reading:
            reply = await self._route.run(
                keys.slots[shard],
                READ,
                keys.stream[shard] + whole,
                keys.events[shard] + whole,
                self._now(),
                self._age,
                b"%d" % after,
                writing=False,
            )
        if not reply:
            return None
        head, last, writer, ended, held, events = reply
        last = int(last)
        return LoggedStream(
            head, last + 1 - len(events), tuple(events), last, last + 1 - held, writer.decode(), ended == b"1"
        )

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """See `EventLog.drop`."""
        for _, stream in streams:
            checked_stream(stream)
        with self._calls.writing:
            await self._room.drop((*shard_of(address), stream.encode()) for address, stream in streams)

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`."""
        shard, text = shard_of(address)
        keys = self._keys
        with self._calls.writing:
            await self._route.run(
                keys.slots[shard],
                DROP_ALL,
                keys.names[shard] + text,
                keys.appended[shard],
                keys.sizes[shard],
                keys.total[shard],
                text,
                keys.stream[shard],
                keys.events[shard],
                writing=True,
            )

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`. One round trip while nothing is too old or too much."""
        checked_limit(limit, most=None)
        with self._calls.writing:
            return await self._room.expire(limit)

    async def try_out(self, address: Address) -> None:
        """Do to a stream of `address` all that is done to streams, and remove it: in about one round trip.

        Raises:
            RedisUnavailable: One of that is refused.
        """
        shard, _ = shard_of(address)
        await asyncio.gather(
            self.append(address, "probe", 1, [b""], head=b"", writer="probe"),
            self.read(address, "probe"),
            self._room.look(self._now(), shard),
            self._room.oldest(shard),
            self._room.sweep(shard, 1),
            self.drop([(address, "probe")]),
            self.drop_all(address),
        )

    def stats(self) -> dict[str, float]:
        """Appends and events so far, events that gave way to newer ones, and streams that did; of this process. Bytes
        that the log holds, as far as this process has been told."""
        return {
            "appends_total": self._appends,
            "appended_events_total": self._appended_events,
            "trimmed_events_total": self._trimmed_events,
            "evicted_streams_total": self._room.evicted,
            "bytes": self._room.known_bytes,
        }

    def _stamp(self) -> bytes:
        """A time that no append before had, so that of two streams one is the older; Redis itself sees to that by its
        own clock."""
        now = self._now()
        if not now:
            return now
        self._last_stamp = max(int(now), self._last_stamp + 1)
        return b"%d" % self._last_stamp


def _newest(events: Sequence[bytes], size: int, bounds: EventLogBounds) -> Sequence[bytes]:
    """The events at the end that the bounds of one stream leave room for, the newest in any case: the others would go
    again at once."""
    start = max(len(events) - bounds.max_events, 0)
    size -= sum(map(len, events[:start]))
    while size > bounds.max_bytes and start < len(events) - 1:
        size -= len(events[start])
        start += 1
    return events[start:]
