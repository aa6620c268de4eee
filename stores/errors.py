"""The root of understudy's error tree, and what a store can answer instead of a record.

The root lives in the lowest room so that every room can raise below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .address import Address

__all__ = [
    "AddressError",
    "EventsTooLarge",
    "RecordExists",
    "RecordNotFound",
    "StaleEpoch",
    "StoreCorrupt",
    "StoreError",
    "StoreURLError",
    "StoreUnavailable",
    "StoreVersionError",
    "StreamTaken",
    "UnderstudyError",
]


class UnderstudyError(Exception):
    """Everything understudy raises on purpose. The message says what was wrong, with which value, and what to do."""


class AddressError(UnderstudyError, ValueError):
    """Text that is no address."""


class StoreError(UnderstudyError):
    """A store could not do, or refused, what it was asked."""


class StoreURLError(StoreError, ValueError):
    """A store URL that cannot be understood, or names a store whose extra is not installed."""


class StoreVersionError(StoreError):
    """The stored data was written by a newer understudy. It is left untouched; upgrade, or name another store."""


class StoreCorrupt(StoreError):
    """The stored data cannot be read (not a database, a damaged page). It is left untouched."""


class StoreUnavailable(StoreError):
    """The store did not answer as it should: down, full, cut off, too slow.

    `outcome_unknown` is True when the request may have taken effect all the same: read back, never guess.
    `retry_after` is a hint in seconds.
    """

    def __init__(self, message: str, *, outcome_unknown: bool, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown
        self.retry_after = retry_after


class RecordNotFound(StoreError, LookupError):
    """No record at this address: never created, deleted, or expired."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"no record at {address}: it was never created, was deleted, or has expired")
        self.address = address


class RecordExists(StoreError):
    """`create` found a record at this address already."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"a record at {address} exists already; claim it instead")
        self.address = address


class StaleEpoch(StoreError):
    """A write under an epoch (or version) that is no longer the record's: another owner has claimed it since.

    `held` is the writer's epoch, `stored` the record's; they are equal where only the version did not follow. The
    writer must drop its copy; nothing was written.
    """

    def __init__(self, address: Address, *, held: int, stored: int) -> None:
        reason = (
            "the version does not follow the record's"
            if held == stored
            else f"the record is at epoch {stored}: another owner holds it now"
        )
        super().__init__(f"write to {address} under epoch {held} refused, {reason}; drop this copy")
        self.address = address
        self.held = held
        self.stored = stored


class StreamTaken(StoreError):
    """An append to a stream that another has appended to, or ended, since. Nothing was written.

    `first` is the number that the append's first event would have had, `last` the number of the stream's newest event.
    """

    def __init__(self, address: Address, stream: str, *, first: int, last: int, ended: bool) -> None:
        state = f"has ended with event {last}" if ended else f"is at event {last}"
        super().__init__(
            f"append of event {first} to stream {stream} of {address} refused: the stream {state}, by another writer "
            "or out of order; stop writing to it"
        )
        self.address = address
        self.stream = stream
        self.first = first
        self.last = last
        self.ended = ended


class EventsTooLarge(StoreError):
    """One append of more bytes than the event log can hold at all. Nothing was written, and a repeat will not help.

    `size` and `most` are bytes.
    """

    def __init__(self, stream: str, *, size: int, most: int) -> None:
        super().__init__(
            f"an append of {size} bytes to stream {stream} refused: the event log holds at most {most}; raise "
            "max_total_bytes of its bounds, or send less at once"
        )
        self.stream = stream
        self.size = size
        self.most = most
