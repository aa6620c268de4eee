"""How a stream of events is written in NATS: its subject, and an append as versioned msgpack."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgpack

from ..address import Address
from ..errors import StoreCorrupt, StoreVersionError
from .records import Parts

__all__ = [
    "FORMAT",
    "Append",
    "actor_key",
    "pack_append",
    "pack_events",
    "stream_key",
    "unpack_append",
    "unpack_events",
]

FORMAT = 1

_ESCAPED = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Append:
    """One append as NATS holds it. All of them carry what a reader must know of the stream, since any may be the only
    one that is left."""

    head: bytes
    first: int
    count: int
    writer: str
    ended: bool
    held_events: int
    """Events in NATS since the stream was last trimmed, this append's included, and"""
    held_bytes: int
    """their bytes."""
    body: tuple[bytes, ...] | Parts

    @property
    def last(self) -> int:
        """The number of its newest event; `first - 1` if it has none."""
        return self.first + self.count - 1


def actor_key(address: Address) -> str:
    """`<kind>.<id>`: what the subjects of all streams of an actor start with. NATS takes few characters, the rest is
    `=xx`."""
    return f"{address.kind}.{_escaped(address.id)}"


def stream_key(address: Address, stream: str) -> str:
    """`<kind>.<id>.<stream>`. No two streams share one. Appends are under `.e`; parts of those that are too large for
    one message under `.p.<generation>.<number>`."""
    return f"{actor_key(address)}.{_escaped(stream)}"


def pack_append(append: Append) -> bytes:
    """The inverse of `unpack_append`."""
    body = append.body
    fields = (
        FORMAT,
        append.head,
        append.first,
        append.count,
        append.writer,
        append.ended,
        append.held_events,
        append.held_bytes,
        body if isinstance(body, tuple) else {"g": body.generation, "c": body.count, "s": body.size},
    )
    return cast(bytes, msgpack.packb(fields))


def unpack_append(key: str, data: bytes) -> Append:
    """An append from the message under `key`.

    Raises:
        StoreVersionError: A newer understudy wrote it.
        StoreCorrupt: It is no append.
    """
    fields = _unpacked(key, data)
    if fields and type(fields[0]) is int and fields[0] > FORMAT:
        raise StoreVersionError(f"the events at {key} in NATS have format {fields[0]}; this understudy reads {FORMAT}")
    if len(fields) != 9 or fields[0] != FORMAT:
        raise _damaged(key)
    _, head, first, count, writer, ended, held_events, held_bytes, body = fields
    numbers = all(type(number) is int and number >= 0 for number in (first, count, held_events, held_bytes))
    if not (numbers and first and type(head) is bytes and type(writer) is str and type(ended) is bool):
        raise _damaged(key)
    return Append(head, first, count, writer, ended, held_events, held_bytes, _body(key, body, count))


def pack_events(events: Sequence[bytes]) -> bytes:
    """What is cut into parts."""
    return cast(bytes, msgpack.packb(tuple(events)))


def unpack_events(key: str, data: bytes, count: int) -> tuple[bytes, ...]:
    """The inverse of `pack_events`.

    Raises:
        StoreCorrupt: Something else, or another number of events.
    """
    return _events(key, _unpacked(key, data), count)


def _unpacked(key: str, data: bytes) -> tuple[Any, ...]:
    try:
        fields: Any = msgpack.unpackb(data, raw=False, use_list=False)
    except Exception as error:  # msgpack raises of several kinds
        raise _damaged(key) from error
    if not isinstance(fields, tuple):
        raise _damaged(key)
    return cast("tuple[Any, ...]", fields)


def _events(key: str, value: Any, count: int) -> tuple[bytes, ...]:
    if isinstance(value, tuple):
        events = cast("tuple[Any, ...]", value)
        if len(events) == count and all(type(event) is bytes for event in events):
            return events
    raise _damaged(key)


def _body(key: str, value: Any, events: int) -> tuple[bytes, ...] | Parts:
    if not isinstance(value, dict):
        return _events(key, value, events)
    fields = cast("dict[str, Any]", value)
    generation, count, size = fields.get("g"), fields.get("c"), fields.get("s")
    if not (type(generation) is str and type(count) is int and type(size) is int and 0 < count <= 2**20):
        raise _damaged(key)
    return Parts(generation, count, size)


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"={ord(match[0]):02x}", text)


def _damaged(key: str) -> StoreCorrupt:
    return StoreCorrupt(f"the events at {key} in NATS are damaged; they are left as they are")
