"""`EventLogCase`: what the parts of the event log contract share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar

from ..address import Address
from ..event_log import EventLog, EventLogBounds, LoggedStream, event_log_of
from .case import ContractCase

__all__ = ["EventLogCase", "numbered"]


class EventLogCase(ContractCase):
    """The base of the suite. The author overrides `open_store`, and opens it with `self.bounds` for its event log.

    As in `ContractCase`, a log that keeps its own time sets `lifetime` and overrides `pass_time`.
    """

    largest_event: ClassVar[int] = 20 * 2**20
    """Bytes of the largest single event in the suite; `max_total_bytes` is 64 MiB where it is sent."""

    bounds: EventLogBounds
    """What the event log of a store opened now keeps."""

    def setup_method(self) -> None:
        """Called by pytest before each test."""
        super().setup_method()
        self.bounds = EventLogBounds(max_events=4096, max_bytes=2**23, max_age=100_000.0, max_total_bytes=2**26)

    @asynccontextmanager
    async def log(self, **bounds: float) -> AsyncGenerator[EventLog]:
        """An event log for one test, with other bounds if they are given."""
        self.bounds = replace(self.bounds, **bounds)
        async with self.opened() as store:
            log = event_log_of(store)
            assert log is not None, "the store brings no event log as `events`"
            yield log

    @asynccontextmanager
    async def second_log(self) -> AsyncGenerator[EventLog]:
        """A second event log on the same data, as at another node."""
        async with self.reopened() as store:
            log = event_log_of(store)
            assert log is not None
            yield log

    async def wrote(
        self,
        log: EventLog,
        first: int,
        events: Sequence[bytes],
        *,
        address: Address | None = None,
        stream: str = "stream",
        writer: str = "node-1",
        ends: bool = False,
    ) -> Address:
        """Append, to a new actor's stream if there is no `address`; the actor's address."""
        address = address or Address.new("session")
        await log.append(address, stream, first, events, head=b"head", writer=writer, ends=ends)
        return address

    async def found(self, log: EventLog, address: Address, stream: str = "stream", *, after: int = 0) -> LoggedStream:
        """The stream that must be there."""
        logged = await log.read(address, stream, after=after)
        assert logged is not None, f"there should be a stream {stream} of {address}"
        assert logged.first + len(logged.events) == logged.last + 1, "the events end with the newest"
        assert max(after + 1, logged.oldest) == logged.first or not logged.events
        return logged


def numbered(first: int, last: int) -> list[bytes]:
    """Events that say which they are."""
    return [b"event %d" % number for number in range(first, last + 1)]
