"""What every event log judges alike: names, sizes, and whether an append follows, repeats or comes too late."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .address import Address
from .errors import EventsTooLarge, StreamTaken
from .event_log import HEAD_LIMIT
from .seal import SEAL_ROOM, is_sealed

__all__ = [
    "Tail",
    "checked_after",
    "checked_append",
    "checked_events",
    "checked_names",
    "checked_stream",
    "missing_events",
]

_STREAM = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WRITER = re.compile(r"[\x21-\x7e]{1,128}")


LARGEST_NUMBER = 2**53
"""Of an event."""


class Tail(NamedTuple):
    """Where a stream ends for the time being."""

    last: int
    writer: str
    ended: bool


def checked_stream(stream: str) -> str:
    """The name of a stream.

    Raises:
        ValueError: Not 1 to 64 letters, digits, `.`, `_` or `-`.
    """
    if _STREAM.fullmatch(stream) is None:
        raise ValueError(f"stream {stream[:80]!r} must be 1 to 64 letters, digits, '.', '_' or '-'")
    return stream


def checked_after(after: int) -> int:
    """The number after which events are wanted.

    Raises:
        ValueError: It is the number of no event, nor 0.
    """
    if not 0 <= after <= LARGEST_NUMBER:
        raise ValueError(f"after {after} must be 0 or the number of an event, at most {LARGEST_NUMBER}")
    return after


def checked_append(stream: str, first: int, events: Sequence[bytes], head: bytes, writer: str, *, most: int) -> int:
    """The bytes of `events`, if everything about the append is sound.

    Raises:
        ValueError: A name, a number or a head that no log takes.
        EventsTooLarge: More than `most` bytes.
    """
    checked_names(stream, writer)
    return checked_events(stream, first, events, head, most=most)


def checked_names(stream: str, writer: str) -> None:
    """The part of `checked_append` that need not be looked at again for more events of the same stream and writer."""
    checked_stream(stream)
    if _WRITER.fullmatch(writer) is None:
        raise ValueError(f"writer {writer[:160]!r} must be 1 to 128 visible ASCII characters")


def checked_events(stream: str, first: int, events: Sequence[bytes], head: bytes, *, most: int) -> int:
    """The other part of it."""
    if not 1 <= first <= LARGEST_NUMBER:
        raise ValueError(f"events are numbered from 1 to {LARGEST_NUMBER}, and the first of these is {first}")
    if len(head) > HEAD_LIMIT and not (is_sealed(head) and len(head) <= HEAD_LIMIT + SEAL_ROOM):
        raise ValueError(f"the head of stream {stream} has {len(head)} bytes; at most {HEAD_LIMIT} are kept")
    size = sum(map(len, events))
    if size + len(head) > most:
        raise EventsTooLarge(stream, size=size + len(head), most=most)
    return size


def missing_events(
    address: Address, stream: str, tail: Tail, first: int, count: int, writer: str, *, ends: bool
) -> int | None:
    """How many of the append's first events are in the stream already, so that the rest follows; None if nothing is
    to be written because all of it is a repeat.

    Raises:
        StreamTaken: It neither follows nor repeats.
    """
    newest = first + count - 1
    if tail.writer == writer and first <= tail.last + 1:
        # A caller that does not know what became of an append may repeat it, alone or together with what came since.
        if newest <= tail.last and (not ends or (tail.ended and newest == tail.last)):
            return None
        if newest >= tail.last and not tail.ended:
            return tail.last + 1 - first
    elif first == tail.last + 1 and not tail.ended:
        return 0
    raise StreamTaken(address, stream, first=first, last=tail.last, ended=tail.ended)
