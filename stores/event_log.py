"""`EventLog`: the seam behind which streams are kept, so that a client may resume one at any node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .address import Address

__all__ = ["HEAD_LIMIT", "STREAM_OVERHEAD", "EventLog", "EventLogBounds", "LoggedStream", "event_log_of"]

HEAD_LIMIT = 16 * 1024
"""Most bytes of a stream's head. Keep it short: a log may write it with each append. What encryption adds comes on top
(`SEAL_ROOM` in `seal.py`)."""

STREAM_OVERHEAD = 512
"""Bytes that a stream counts in `max_total_bytes` beside its head and its events, so that their number is bounded."""


@dataclass(frozen=True, slots=True)
class EventLogBounds:
    """What an event log keeps. What has to make room is the oldest; whoever asks for it is told that it is gone."""

    max_events: int = 4096
    """Events of one stream."""
    max_bytes: int = 8 * 2**20
    """Bytes of the events of one stream. The newest event is kept whatever its size."""
    max_age: float = 600.0
    """Seconds that an event is kept at least, and that a stream is kept after the newest append to it."""
    max_total_bytes: int = 2**30
    """Bytes of all streams together, and so of one append. What makes room is what was appended longest ago."""

    def __post_init__(self) -> None:
        for name in ("max_events", "max_bytes", "max_age", "max_total_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)!r} of an event log's bounds must be above 0")


@dataclass(frozen=True, slots=True)
class LoggedStream:
    """A stream as the log has it."""

    head: bytes
    """What its first writer said of it."""
    first: int
    """The number of the first of `events`; `last + 1` if there are none."""
    events: tuple[bytes, ...]
    last: int
    """The number of its newest event; one less than it began with as long as there is none. `events` end with it."""
    oldest: int
    """The number of the oldest event that is kept; `last + 1` if none is. Above `after + 1`: events are gone."""
    writer: str
    """Who appended last."""
    ended: bool
    """Its last event has been appended: nothing follows."""


@runtime_checkable
class EventLog(Protocol):
    """Where the events of streams live. One object per node; methods may be called concurrently from one event loop.

    The contract, which `understudy.stores.testing` checks:

    * Events of a stream are numbered from 1, without gaps. **one-writer**: an append that does not follow what is there
      raises `StreamTaken` and writes nothing, so of two writers that both take themselves for the owner one learns that
      it is not.
    * An append is all or nothing, durable to the degree the log's documentation states, and visible to every later read
      at any node.
    * `append` is idempotent: as long as nobody else has appended since, the same writer's same events again are
      acknowledged and change nothing. So a caller whose acknowledgement was lost may simply repeat it, alone or
      together with the events that came since. Numbers and writer tell a repeat, the bytes are not compared.
    * Within the bounds nothing is lost; beyond them the oldest goes, and `read` says so by `oldest`. A stream that is
      too old is gone for every method, whether or not it has been swept.
    * A stream that is gone may begin again under its name, as a new one.
    * Every method may raise `StoreUnavailable`. Cancelling a call leaves the outcome unknown and the log usable; an
      append that was cancelled may still take effect later.
    * `stream` is 1 to 64 letters, digits, `.`, `_` or `-`; `writer` 1 to 128 visible ASCII characters; `head` at most
      `HEAD_LIMIT` bytes; `first` 1 to 2**53, `after` 0 to 2**53. Anything else is a `ValueError` and writes nothing.
    """

    @property
    def bounds(self) -> EventLogBounds:
        """What it keeps."""
        ...

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
        """Append `events`, numbered from `first` on, to a stream of the actor at `address`.

        A stream that is not there begins, with `head`, at whatever number the writer says (an earlier part may have
        gone by age); `head` is not looked at afterwards. `events` may be empty, to begin a stream or to end it. `ends`:
        nothing follows the last of them.

        Raises:
            StreamTaken: The newest event is not number `first - 1`, or the stream has ended, and this is no repeat.
            EventsTooLarge: It is more than the log can hold at all. A repeat will not help.
        """
        ...

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """The stream with its events after number `after`, as far as they are kept; None if there is no such stream.

        Holds all that it returns in memory: at most `bounds.max_bytes`, or one event that is larger.
        """
        ...

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """Forget these streams. Those that are not there are passed over."""
        ...

    async def drop_all(self, address: Address) -> None:
        """Forget every stream of the actor at `address`."""
        ...

    async def expire(self, *, limit: int = 1000) -> int:
        """Sweep up to `limit` streams away that are too old, or too much together; how many went."""
        ...

    def stats(self) -> dict[str, float]:
        """Plain numbers: `appends_total`, `appended_events_total`, and what else the log knows without asking."""
        ...


def event_log_of(store: object) -> EventLog | None:
    """The event log that `store` brings with it as `events`; None if it brings none."""
    events = getattr(store, "events", None)
    return events if isinstance(events, EventLog) else None
