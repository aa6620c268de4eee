"""What stands in place of a record on its way: a tombstone where it was, a placeholder where it goes.

Both are told from snapshots by their first bytes: C1 begins neither msgpack nor UTF-8, and what follows tells them from
a sealed value (`seal.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from ..errors import StoreCorrupt, StoreVersionError
from ..record import Record, RecordInfo

__all__ = ["MOVER", "Tombstone", "is_placeholder", "is_tombstone", "maybe_tombstone", "placeholder"]

MOVER: Final = "understudy moving"
"""Whom a store names as the owner of what is on its way."""

FORMAT: Final = 1
_TOMBSTONE: Final = b"\xc1ut"
_PLACEHOLDER: Final = b"\xc1up\x01"

NEVER: Final = 0.0
"""When a placeholder was last changed, so that a list tells it from a session."""

MARGIN: Final = 60.0
"""Seconds by which a placeholder outlives its tombstone, whatever clocks say: a tombstone without one means that the
session has ended since."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left in the former store of a record that belongs to the next one: all that it takes to put it there."""

    epoch: int
    version: int
    created: float
    updated: float
    expires: float
    snapshot: bytes

    @classmethod
    def of(cls, record: Record) -> Self:
        """For a session's record."""
        return cls(record.epoch, record.version, record.created, record.updated, record.expires, record.snapshot)

    @classmethod
    def found_in(cls, record: Record) -> Self | None:
        """The tombstone that `record` is; None if it is a session's.

        Raises:
            StoreVersionError: Of a newer understudy.
            StoreCorrupt: It is damaged.
        """
        if not is_tombstone(record.snapshot):
            return None
        written = record.snapshot[len(_TOMBSTONE)]
        if written != FORMAT:
            raise StoreVersionError(
                f"{record.address} was moved to another store in format {written}; this understudy reads {FORMAT}"
            )
        try:
            fields = cast("Any", msgpack.unpackb(record.snapshot[len(_TOMBSTONE) + 1 :]))  # pyright: ignore[reportUnknownMemberType]
        except Exception as error:  # msgpack raises of several kinds
            raise _damaged(record) from error
        match fields:
            case [int(epoch), int(version), float(created), float(updated), float(expires), bytes(snapshot)]:
                return cls(epoch, version, created, updated, expires, snapshot)
            case _:
                raise _damaged(record)

    def pack(self) -> bytes:
        """As a snapshot."""
        fields = [self.epoch, self.version, self.created, self.updated, self.expires, self.snapshot]
        return _TOMBSTONE + bytes([FORMAT]) + cast("bytes", msgpack.packb(fields))  # pyright: ignore[reportUnknownMemberType]

    def awaited_by(self, there: Record) -> bool:
        """Whether what is in the next store is the placeholder of this very move, and not one that a move has left
        there late which another came before."""
        return there.snapshot == _place_of(self.epoch, len(self.snapshot))

    def record(self, found: Record) -> Record:
        """The session's record, which `found` stands for."""
        return replace(
            found,
            epoch=self.epoch,
            version=self.version,
            created=self.created,
            updated=self.updated,
            expires=self.expires,
            snapshot=self.snapshot,
        )


def is_tombstone(snapshot: bytes) -> bool:
    """Whether a record with this snapshot is a tombstone."""
    return snapshot.startswith(_TOMBSTONE) and len(snapshot) > len(_TOMBSTONE)


def maybe_tombstone(info: RecordInfo) -> bool:
    """Whether a record that is listed may be a tombstone: its snapshot tells."""
    return info.owner == MOVER


def placeholder(record: Record) -> Record:
    """What is put into the next store before `record` may leave the former one.

    A save of `record` as it is follows on it, and on nothing else. So a call that comes late cannot bring a session
    back that has ended there: a save needs a record that is there, and a placeholder is no session. It is as large as
    the record, so that a store which has no room for one refuses it while the other is where it was.
    """
    return replace(
        record,
        version=record.version - 1,
        owner=MOVER,
        updated=NEVER,
        expires=record.expires + MARGIN,
        snapshot=_place_of(record.epoch, len(record.snapshot)),
    )


def is_placeholder(info: RecordInfo) -> bool:
    """Whether a record is a placeholder; a list tells too."""
    return info.updated == NEVER


def _place_of(epoch: int, size: int) -> bytes:
    return (b"%b%d" % (_PLACEHOLDER, epoch)).ljust(size)


def _damaged(record: Record) -> StoreCorrupt:
    return StoreCorrupt(f"what is left of {record.address}, which was moved to another store, is damaged")
