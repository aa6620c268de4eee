"""Names of keys in Redis: shards, so that what one script touches lies on one node of a cluster."""

from __future__ import annotations

from binascii import crc32, crc_hqx

from ..address import Address

__all__ = ["SHARDS", "Keys", "shard_of", "slot_of"]

SHARDS = 64
"""Indexes that the records are divided among, by a hash of the address. Part of the format."""


class Keys:
    """The names of one store's keys.

    `{PREFIX:SHARD}:r:kind/id` is a record (a hash), `{PREFIX:SHARD}:i` the index of the shard's records by tenant and
    address, `{PREFIX:SHARD}:x` the same by the end of their lives. What stands in braces alone decides the slot.

    Of the event log, a stream being `NAME/kind/id`: `:m:STREAM` what is known of it (a hash), `:l:STREAM` its events (a
    list), `:n:kind/id` the names of an actor's streams (a set); and of the shard `:a` its streams by their newest
    append, `:z` their sizes, `:b` the sum of those.
    """

    def __init__(self, prefix: str) -> None:
        tags = [f"{{{prefix}:{shard:02x}}}:".encode() for shard in range(SHARDS)]
        self.schema = f"{prefix}:schema".encode()
        self.record = [tag + b"r:" for tag in tags]
        """What the keys of records begin with, by shard."""
        self.index = [tag + b"i" for tag in tags]
        self.ends = [tag + b"x" for tag in tags]
        self.probe = [tag + b"probe" for tag in tags]
        self.stream = [tag + b"m:" for tag in tags]
        self.events = [tag + b"l:" for tag in tags]
        self.names = [tag + b"n:" for tag in tags]
        self.appended = [tag + b"a" for tag in tags]
        self.sizes = [tag + b"z" for tag in tags]
        self.total = [tag + b"b" for tag in tags]
        self.slots = [slot_of(tag) for tag in tags]
        """The slot of a cluster that each shard lies in."""


def shard_of(address: Address) -> tuple[int, bytes]:
    """The shard of an address, and the address as bytes."""
    text = f"{address.kind}/{address.id}".encode()
    return crc32(text) % SHARDS, text


def slot_of(key: bytes) -> int:
    """The slot of a key in a Redis cluster: CRC16 of what stands in its first braces, or of all of it."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % 16384
