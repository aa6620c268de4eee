"""A batch: the frames that one publish carries.

    "us" | version, 1 byte | CRC-32 of what follows, 4 bytes | msgpack [path, seq, ack, [frame, ...]]

`path` numbers the lives of the path between two incarnations, `seq` the batches of one direction from 1 on, `ack` is
the last one of the other direction that has arrived with all before it. A batch with `seq` 0 may be lost: it carries
pings, pongs and acknowledgements.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...actors.packing import pack, unpack
from ...stores import UnderstudyError
from .codec import decode_frame
from .frames import LOOSE, MAX_NUMBER, Frame
from .head_book import HeadBook
from .versions import Versions

__all__ = ["OVERHEAD", "Batch", "CorruptBatch", "ForeignBatch", "decode_batch", "encode_batch"]

MAGIC: Final = b"us"
_HEADER: Final = len(MAGIC) + 1 + 4
OVERHEAD: Final = 64
"""Bytes of a batch besides its frames, at most."""
MAX_FRAMES: Final = 4096
"""In one batch."""


class ForeignBatch(UnderstudyError, ValueError):
    """Not one of ours, or of a version that is not spoken here."""


class CorruptBatch(UnderstudyError, ValueError):
    """One of ours, damaged on its way or made by a faulty node."""


class Batch(NamedTuple):
    version: int
    path: int
    seq: int
    ack: int
    frames: list[Frame]
    size: int
    """Bytes of the whole."""


def encode_batch(version: int, path: int, seq: int, ack: int, frames: Sequence[bytes]) -> bytes:
    """A batch of frames that are encoded already, for this version."""
    # A list of four, of which the last is a list too; the frames are packed already.
    numbers = pack((path, seq, ack))
    body = b"".join((b"\x94", numbers[1:], b"\xdc", len(frames).to_bytes(2, "big"), *frames))
    return b"".join((MAGIC, version.to_bytes(1, "big"), zlib.crc32(body, version).to_bytes(4, "big"), body))


def decode_batch(payload: bytes, versions: Versions, book: HeadBook) -> Batch:
    """The inverse of `encode_batch`.

    Raises:
        ForeignBatch: No magic, or a version outside `versions`.
        CorruptBatch: The checksum, the msgpack or the shape is wrong.
    """
    if len(payload) < _HEADER or payload[:2] != MAGIC:
        raise ForeignBatch(f"{len(payload)} bytes that are no batch")
    version = payload[2]
    if not versions[0] <= version <= versions[1]:
        raise ForeignBatch(f"a batch of version {version}, but {versions[0]} to {versions[1]} are spoken here")
    body = payload[_HEADER:]
    if zlib.crc32(body, version) != int.from_bytes(payload[3:_HEADER], "big"):
        raise CorruptBatch(f"a batch of {len(payload)} bytes does not have its checksum")
    try:
        path, seq, ack, raw = unpack(body)
        listed: list[Any] = raw
        if (
            type(path) is not int
            or type(seq) is not int
            or type(ack) is not int
            or not (0 < path < MAX_NUMBER and 0 <= seq < MAX_NUMBER and 0 <= ack < MAX_NUMBER)
        ):
            raise ValueError("the numbers of a batch are out of range")
        if raw.__class__ is not list or len(listed) > MAX_FRAMES:
            raise ValueError("a batch has no list of frames, or too many")
        frames = [decode_frame(frame, version, book) for frame in listed]
        if any([(type(frame) in LOOSE) is not (seq == 0) for frame in frames]):  # noqa: C419 (costs half as much)
            raise ValueError("a frame is in the wrong kind of batch")
    except (ValueError, TypeError) as error:
        raise CorruptBatch(f"a batch of version {version} cannot be read: {error}") from error
    return Batch(version, path, seq, ack, frames, len(payload))
