"""How a record is written in NATS: its key, and its value as versioned msgpack."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, cast

import msgpack

from ..address import Address
from ..errors import StoreCorrupt, StoreVersionError
from ..record import Record, RecordInfo

__all__ = [
    "SHARDS",
    "Head",
    "Parts",
    "address_of",
    "is_record_key",
    "pack_head",
    "part_prefix",
    "record_key",
    "unpack_head",
]

FORMAT = 1

SHARDS = tuple(f"{number:02x}" for number in range(256))
"""The second token of a key: spreads the keys, so that they can be listed in portions of any size."""

_ESCAPED = re.compile(r"[^A-Za-z0-9_-]")
_ESCAPE = re.compile(r"=([0-9a-f]{2})")
_KEY = re.compile(r"s\.([0-9a-f]{2})\.([a-z][a-z0-9_-]{0,31})\.((?:[A-Za-z0-9_-]|=[0-9a-f]{2}){1,384})")


@dataclass(frozen=True, slots=True)
class Parts:
    """Where a snapshot is that does not fit into one message: `count` messages under `generation`, `size` bytes."""

    generation: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    """A record as NATS holds it."""

    info: RecordInfo
    body: bytes | Parts

    def record(self, snapshot: bytes) -> Record:
        """The whole record, once its snapshot is at hand."""
        i = self.info
        return Record(i.address, i.tenant, i.epoch, i.version, i.owner, i.created, i.updated, i.expires, snapshot)


def record_key(address: Address) -> str:
    """`s.<shard>.<kind>.<id>`: no two addresses share one. NATS takes few characters in a key, the rest is `=xx`."""
    return f"s.{_tail(address)}"


def part_prefix(address: Address, generation: str) -> str:
    """What the keys of a snapshot's parts start with; their number follows after a dot."""
    return f"p.{_tail(address)}.{generation}"


def address_of(key: str) -> Address:
    """The inverse of `record_key`.

    Raises:
        StoreCorrupt: No key of this store's.
    """
    match = _KEY.fullmatch(key)
    if match is not None:
        address = Address(match[2], _ESCAPE.sub(lambda m: chr(int(m[1], 16)), match[3]))
        if record_key(address) == key:
            return address
    raise StoreCorrupt(f"the NATS bucket holds a key that understudy did not write: {key[:512]!r}; remove it")


def is_record_key(key: str) -> bool:
    """Whether `key` has the form of a record's."""
    return _KEY.fullmatch(key) is not None


def pack_head(head: Head) -> bytes:
    """The value under a record's key."""
    i = head.info
    body = head.body if isinstance(head.body, bytes) else [head.body.generation, head.body.count, head.body.size]
    fields = [FORMAT, i.tenant, i.epoch, i.version, i.owner, i.created, i.updated, i.expires, body]
    return cast(bytes, msgpack.packb(fields, use_bin_type=True))


def unpack_head(key: str, value: bytes) -> Head:
    """The inverse of `pack_head`.

    Raises:
        StoreVersionError: Written by a newer understudy.
        StoreCorrupt: Not written by understudy, or damaged.
    """
    address = address_of(key)
    try:
        fields: Any = msgpack.unpackb(value, raw=False, use_list=False, max_array_len=64, max_map_len=0)
    except Exception as error:  # msgpack raises of several kinds
        raise _damaged(address) from error
    if not isinstance(fields, tuple) or not fields:
        raise _damaged(address)
    fields = cast("tuple[Any, ...]", fields)
    if type(fields[0]) is int and fields[0] > FORMAT:
        raise StoreVersionError(f"the record at {address} has format {fields[0]}; this understudy reads {FORMAT}")
    if fields[0] != FORMAT or len(fields) != 9:
        raise _damaged(address)
    _, tenant, epoch, version, owner, created, updated, expires, body = fields
    if isinstance(body, tuple):
        body = _parts(address, cast("tuple[Any, ...]", body))
    texts = isinstance(tenant, str) and isinstance(owner, str)
    numbers = type(epoch) is int and type(version) is int and epoch > 0
    times = all(isinstance(time, float) for time in (created, updated, expires))
    if not (texts and numbers and times and isinstance(body, bytes | Parts)):
        raise _damaged(address)
    return Head(RecordInfo(address, tenant, epoch, version, owner, created, updated, expires), body)


def _parts(address: Address, fields: tuple[Any, ...]) -> Parts:
    match fields:
        case (str(generation), int(count), int(size)) if generation.isalnum() and 0 < count <= 2**20 and size >= 0:
            return Parts(generation, count, size)
        case _:
            raise _damaged(address)


def _damaged(address: Address) -> StoreCorrupt:
    return StoreCorrupt(f"the record at {address} in the NATS bucket is damaged; it is left as it is")


def _tail(address: Address) -> str:
    shard = zlib.crc32(f"{address.kind}/{address.id}".encode()) & 0xFF
    return f"{shard:02x}.{address.kind}.{_ESCAPED.sub(lambda m: f'={ord(m[0]):02x}', address.id)}"
