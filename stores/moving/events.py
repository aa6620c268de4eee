"""`MovingEventLog`: the event logs of two stores as one, while nodes move from one to the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..address import Address
from ..errors import StreamTaken
from ..event_log import EventLog, EventLogBounds, LoggedStream
from ..event_rules import LARGEST_NUMBER, checked_append

__all__ = ["MovingEventLog"]

SEALED: Final = "understudy.moving"
"""The writer of the end that a stream is given in the former log when it goes on in the next."""

MAX_KNOWN: Final = 16_384

MAX_STREAMS: Final = 64
"""Of one actor that are remembered."""

Key = tuple[Address, str]

_NONE: Final[set[str]] = set()


class MovingEventLog:
    """An `EventLog` over two. A stream is in `former` up to some number, and in `next` from there on.

    Before a stream is written to in `next` it is ended in `former`, in the name of the move, so that a writer that
    still takes itself for the owner learns there that it is not (one-writer). For that the first append of each stream
    costs one call more.

    Args:
        begins_in_next: Whether new streams, and those that are appended to, go to `next`. Otherwise they stay in
            `former` until a node of the other kind has written to them.
        max_known: Actors of whose streams it is remembered that they are in `next`.
    """

    def __init__(self, former: EventLog, next: EventLog, *, begins_in_next: bool, max_known: int = MAX_KNOWN) -> None:
        if max_known < 1:
            raise ValueError(f"max_known {max_known} must be at least 1")
        self._former = former
        self._next = next
        self._begins_in_next = begins_in_next
        self._max_known = max_known
        self._in_next: OrderedDict[Address, set[str]] = OrderedDict()

    @property
    def bounds(self) -> EventLogBounds:
        """Those of the log that new streams are in."""
        return self._next.bounds if self._begins_in_next else self._former.bounds

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
        checked_append(stream, first, events, head, writer, most=self.bounds.max_total_bytes)
        if stream not in self._in_next.get(address, ()):
            try:
                if not self._begins_in_next:
                    await self._former.append(address, stream, first, events, head=head, writer=writer, ends=ends)
                    return
                await self._former.append(address, stream, first, (), head=head, writer=SEALED, ends=True)
            except StreamTaken as taken:
                await self._require_sealed(address, stream, taken)
        await self._next.append(address, stream, first, events, head=head, writer=writer, ends=ends)
        self._remember(address, stream)

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`."""
        # In this order: what the next log has of it, the former has been sealed before.
        later = await self._next.read(address, stream, after=after)
        earlier = await self._former.read(address, stream, after=after)
        if earlier is None or later is None:
            return _unsealed(earlier) if later is None else later
        if later.oldest != earlier.last + 1:
            # What stood between has made room.
            return later
        if not earlier.events:
            return replace(later, head=earlier.head, oldest=earlier.oldest)
        return LoggedStream(
            earlier.head,
            earlier.first,
            earlier.events + later.events,
            later.last,
            earlier.oldest,
            later.writer,
            later.ended,
        )

    async def drop(self, streams: Sequence[Key]) -> None:
        """See `EventLog.drop`."""
        await self._former.drop(streams)
        await self._next.drop(streams)
        for address, stream in streams:
            self._in_next.get(address, _NONE).discard(stream)

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`."""
        await self._former.drop_all(address)
        await self._next.drop_all(address)
        self._in_next.pop(address, None)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`."""
        swept = await self._former.expire(limit=limit)
        return swept + (await self._next.expire(limit=limit - swept) if swept < limit else 0)

    def stats(self) -> dict[str, float]:
        """The numbers of the log that new streams are in."""
        return (self._next if self._begins_in_next else self._former).stats()

    async def _require_sealed(self, address: Address, stream: str, taken: StreamTaken) -> None:
        """The former log has refused an append: rightly, unless the stream goes on in the next one.

        Raises:
            StreamTaken: It does not; or it is to go on there, and not with this.
        """
        earlier = await self._former.read(address, stream, after=LARGEST_NUMBER)
        if earlier is None or not earlier.ended or earlier.writer != SEALED:
            raise taken
        later = await self._next.read(address, stream, after=LARGEST_NUMBER)
        if later is None and taken.first != earlier.last + 1:
            raise taken

    def _remember(self, address: Address, stream: str) -> None:
        known = self._in_next.setdefault(address, set())
        if len(known) >= MAX_STREAMS:
            known.clear()
        known.add(stream)
        self._in_next.move_to_end(address)
        if len(self._in_next) > self._max_known:
            self._in_next.popitem(last=False)


def _unsealed(logged: LoggedStream | None) -> LoggedStream | None:
    """As it is for whoever reads: that it was ended in the former log is not its end."""
    if logged is None or logged.writer != SEALED:
        return logged
    # Where nothing but the mark is there, the append that it was made for never came.
    return None if logged.last == 0 else replace(logged, ended=False)
