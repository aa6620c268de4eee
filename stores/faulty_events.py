"""`FaultyEventLog`: the event log of a `FaultyStore`, which decides what befalls its calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar

from .address import Address
from .event_log import EventLog, EventLogBounds, LoggedStream

__all__ = ["EventOperation", "FaultyEventLog"]

T = TypeVar("T")

EventOperation = Literal["events.append", "events.read", "events.drop", "events.drop_all", "events.expire"]


class _Fate(Protocol):
    async def __call__(self, operation: EventOperation, call: Callable[[], Awaitable[T]]) -> T: ...


class FaultyEventLog:
    """An `EventLog` around `inner`. Made by `FaultyStore`, whose `fail_next`, `release` and seed are for it too."""

    def __init__(self, inner: EventLog, call: _Fate) -> None:
        self.inner = inner
        self._call = call

    @property
    def bounds(self) -> EventLogBounds:
        """As `inner` says."""
        return self.inner.bounds

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
        await self._call(
            "events.append",
            lambda: self.inner.append(address, stream, first, events, head=head, writer=writer, ends=ends),
        )

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`."""
        return await self._call("events.read", lambda: self.inner.read(address, stream, after=after))

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """See `EventLog.drop`."""
        await self._call("events.drop", lambda: self.inner.drop(streams))

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`."""
        await self._call("events.drop_all", lambda: self.inner.drop_all(address))

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`."""
        return await self._call("events.expire", lambda: self.inner.expire(limit=limit))

    def stats(self) -> dict[str, float]:
        """As `inner` says."""
        return self.inner.stats()
