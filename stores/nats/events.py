"""`NatsEventLog`: streams in JetStream, beside the bucket of a `NatsStore`, for the nodes of a cluster."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress

from ..address import Address
from ..arguments import checked_limit
from ..calls import Calls
from ..errors import StoreError, StreamTaken
from ..event_log import EventLogBounds, LoggedStream
from ..event_rules import Tail, checked_after, checked_append, checked_stream, missing_events
from .bodies import a_few_at_a_time
from .bucket import Bucket, WrongRevision
from .errors import NatsUnavailable
from .event_reading import Reading
from .event_records import Append, actor_key, pack_append, pack_events, stream_key, unpack_append
from .event_stream import EventStream
from .event_tails import StreamEnd, StreamName, Tails
from .records import Parts
from .turns import Turns

__all__ = ["NatsEventLog"]

_ATTEMPTS = 20
"""Times that an append is tried when others append to the same stream in the same moment."""

_LARGEST_APPEND = 128 * 2**20
"""Bytes: more than this is on its way for longer than a caller would wait."""


class NatsEventLog:
    """An `EventLog` in a JetStream stream beside the store's bucket, with its storage and its replicas.

    An append is one message, and a compare-and-set on the last of its stream, so NATS itself lets one of two writers
    win. One that is too large for a message is in parts, written before the message that refers to them.

    NATS removes what is too old by its own clock, within a second or so, and the oldest of all beyond
    `max_total_bytes`. The stream is made at the first use; where there is no room for all of `max_total_bytes`, a
    smaller one, as `bounds` then says.

    Made by `NatsStore`.
    """

    def __init__(self, bucket: Bucket, calls: Calls, bounds: EventLogBounds) -> None:
        self._bucket = bucket
        self._calls = calls
        self._bounds = bounds
        self._stream: EventStream | None = None
        self._opening = asyncio.Lock()
        self._turns: Turns[StreamName] = Turns(bucket.timeout)
        self._tails = Tails()
        self._appends = 0
        self._appended_events = 0
        self._conflicts = 0
        self._trims = 0

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
        """See `EventLog.append`. One round trip if this node appended to the stream last, or it is new."""
        # Parts push out what is oldest: half of the room, so that they do not push out each other.
        most = min(self._bounds.max_total_bytes // 2, _LARGEST_APPEND)
        checked_append(stream, first, events, head, writer, most=most)
        events = tuple(events)
        name = (address, stream)
        async with self._call(self._calls.writing) as log, self._turns.alone(name):
            end = self._tails.take(name)
            looked = False
            if end is None and first > 1:
                end, looked = await self._look(log, name), True
            for attempt in range(_ATTEMPTS):
                try:
                    there = 0
                    if end is not None:
                        try:
                            found = missing_events(address, stream, end.tail, first, len(events), writer, ends=ends)
                        except StreamTaken:
                            if looked:
                                raise
                            # What we remember may be long gone, and another stream begun under the name.
                            raise WrongRevision from None
                        if found is None:
                            self._tails.put(name, end)
                            return
                        there = found
                    new = await self._write(
                        log, name, end, first + there, events[there:], head=head, writer=writer, ends=ends
                    )
                except WrongRevision:
                    self._conflicts += 1
                    await asyncio.sleep(random.uniform(0, 0.001 * attempt))
                    end, looked = await self._look(log, name), True
                    continue
                self._appends += 1
                self._appended_events += len(events) - there
                # Appended it is, so nothing that goes wrong now may reach the caller.
                with suppress(StoreError):
                    await self._trim(log, name, new)
                self._tails.put(name, new)
                return
            raise NatsUnavailable(f"stream {stream} of {address}: others append to it all the time; try again")

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`. NATS sends the whole stream, whatever `after` is: 4 MiB a round trip."""
        checked_stream(stream)
        checked_after(after)
        async with self._call(self._calls.reading) as log:
            return (await self._read(log, (address, stream))).result(after)

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """See `EventLog.drop`. One request for each, a few at a time."""
        for _, stream in streams:
            checked_stream(stream)
        async with self._call(self._calls.writing) as log:

            async def purge(number: int) -> None:
                self._tails.take(streams[number])
                await log.purge(f"{stream_key(*streams[number])}.>")

            await a_few_at_a_time(purge, len(streams))

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`. One request."""
        async with self._call(self._calls.writing) as log:
            self._tails.forget_actor(address)
            await log.purge(f"{actor_key(address)}.>")

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`. Costs nothing: NATS does it by itself."""
        checked_limit(limit, most=None)
        with self._calls.writing:
            return 0

    def stats(self) -> dict[str, float]:
        """Appends and events so far, appends that met another's, times that a stream was trimmed; of this node. Streams
        whose end it remembers."""
        return {
            "appends_total": self._appends,
            "appended_events_total": self._appended_events,
            "conflicts_total": self._conflicts,
            "trims_total": self._trims,
            "remembered_streams": len(self._tails),
        }

    @asynccontextmanager
    async def _call(self, kind: AbstractContextManager[None]) -> AsyncGenerator[EventStream]:
        with kind:
            try:
                yield await self._opened()
            except NatsUnavailable:
                # It may have been removed, or have gone with a server that had it in memory: make it again.
                self._stream = None
                raise

    async def _opened(self) -> EventStream:
        if self._stream is None:
            try:
                async with asyncio.timeout(3 * self._bucket.timeout), self._opening:
                    if self._stream is None:
                        self._stream = await EventStream.open(self._bucket, self._bounds)
                        self._bounds = self._stream.bounds
            except TimeoutError as error:
                raise NatsUnavailable("the event log in NATS could not be opened in time") from error
        return self._stream

    async def _look(self, log: EventStream, name: StreamName) -> StreamEnd | None:
        """The end of a stream as NATS has it now."""
        key = f"{stream_key(*name)}.e"
        entry = await log.get(key)
        if entry is None or entry.value is None:
            return None
        return StreamEnd.of(entry.revision, unpack_append(key, entry.value))

    async def _write(
        self,
        log: EventStream,
        name: StreamName,
        before: StreamEnd | None,
        first: int,
        events: tuple[bytes, ...],
        *,
        head: bytes,
        writer: str,
        ends: bool,
    ) -> StreamEnd:
        """Append behind `before`; raises `WrongRevision` if that is no longer the end."""
        key = stream_key(*name)
        size = sum(map(len, events))
        if before is None:
            before = StreamEnd(0, head, Tail(first - 1, writer, False))
        held = (before.held_events + len(events), before.held_bytes + size)
        append = Append(before.head, first, len(events), writer, ends, *held, events)
        packed = pack_append(append)
        start, generation = 0, ""
        if len(packed) > log.max_value:
            generation = secrets.token_hex(8)
            parts, start = await self._write_parts(log, f"{key}.p.{generation}", events)
            packed = pack_append(Append(before.head, first, len(events), writer, ends, *held, parts))
        try:
            sequence = await log.put(f"{key}.e", packed, expected=before.sequence)
        except (WrongRevision, NatsUnavailable) as error:
            if generation and not (isinstance(error, NatsUnavailable) and error.outcome_unknown):
                await _discard(log, f"{key}.p.{generation}")
            raise
        end = StreamEnd(sequence, before.head, Tail(append.last, writer, ends), before.segments)
        end.grow(start or sequence, len(events), size, self._bounds)
        return end

    async def _write_parts(self, log: EventStream, prefix: str, events: tuple[bytes, ...]) -> tuple[Parts, int]:
        """The parts of an append, and the sequence number of the first message."""
        body = memoryview(pack_events(events))
        most = log.max_value
        count = -(-len(body) // most)
        sequences: list[int] = []

        async def write(number: int) -> None:
            part = bytes(body[number * most : (number + 1) * most])
            sequences.append(await log.put(f"{prefix}.{number}", part))

        try:
            await a_few_at_a_time(write, count)
        except NatsUnavailable as error:
            # Without the message that refers to them they are nothing.
            error.outcome_unknown = False
            await _discard(log, prefix)
            raise
        return Parts(prefix.rpartition(".")[2], count, len(body)), min(sequences)

    async def _read(self, log: EventStream, name: StreamName) -> Reading:
        key = stream_key(*name)
        reading = Reading(self._bounds)
        up_to = 0
        if log.replicas > 1:
            # The replica that answers may lag behind; what the leader has must be there.
            newest = await log.get(f"{key}.e")
            if newest is None:
                return reading
            up_to = newest.revision
        async with aclosing(log.messages(f"{key}.>")) as messages:
            async for message in messages:
                reading.take(message)
        if reading.sequence < up_to:
            async with aclosing(log.messages_of_leader(f"{key}.>", reading.sequence + 1, up_to)) as messages:
                async for message in messages:
                    reading.take(message)
        return reading

    async def _trim(self, log: EventStream, name: StreamName, end: StreamEnd) -> None:
        if not end.too_long(self._bounds):
            return
        if end.needs_a_look(self._bounds):
            reading = await self._read(log, name)
            if reading.sequence == end.sequence:
                end.segments = reading.segments
        below = end.cut(self._bounds)
        if below:
            self._trims += 1
            await log.purge_before(f"{stream_key(*name)}.>", below)


async def _discard(log: EventStream, prefix: str) -> None:
    """What cannot be removed now, NATS removes when it is too old."""
    with suppress(NatsUnavailable):
        await log.purge(f"{prefix}.>")
