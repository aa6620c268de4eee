"""A batch: the frames that one publish carries.

    "us" | version, 1 byte | msgpack [path, seq, ack, [frame, ...]]

The msgpack is sealed (`Seals`). In versions 1 to 3 it is not: its CRC-32, 4 bytes, goes before it, which anybody can
make.

`path` numbers the lives of the path between two incarnations, `seq` the batches of one direction from 1 on, `ack` is
the last one of the other direction that has arrived with all before it. A batch with `seq` 0 may be lost: it carries
pings, pongs and acknowledgements.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...actors.packing import unpack
from ...stores import UnderstudyError
from .codec import decode_frame
from .frames import LOOSE, MAX_NUMBER, Frame
from .head_book import HeadBook
from .packer import pack_strictly
from .seals import Seal
from .versions import SEALED, Versions

__all__ = [
    "OVERHEAD",
    "Batch",
    "CorruptBatch",
    "ForeignBatch",
    "ForgedBatch",
    "UnsealedBatch",
    "decode_batch",
    "encode_batch",
]

MAGIC: Final = b"us"
_PREFIX: Final = len(MAGIC) + 1
_CHECKED: Final = _PREFIX + 4
OVERHEAD: Final = 80
"""Bytes of a batch besides its frames, at most."""
MAX_FRAMES: Final = 4096
"""In one batch."""


class ForeignBatch(UnderstudyError, ValueError):
    """Not one of ours, or of a version that is not spoken here."""


class UnsealedBatch(ForeignBatch):
    """Of a version that is not sealed, where only sealed ones are taken."""


class ForgedBatch(UnderstudyError, ValueError):
    """Its seal is not that of the node that it says it is from, or made with a key that does not open here."""


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


def encode_batch(
    version: int, path: int, seq: int, ack: int, frames: Sequence[bytes], seal: Seal | None = None
) -> bytes:
    """A batch of frames that are encoded already, for this version.

    Raises:
        ValueError: The version is a sealed one, and there is no seal, or no key.
    """
    # A list of four, of which the last is a list too; the frames are packed already.
    numbers = pack_strictly([path, seq, ack])
    body = b"".join((b"\x94", numbers[1:], b"\xdc", len(frames).to_bytes(2, "big"), *frames))
    if version < SEALED:
        return b"".join((MAGIC, version.to_bytes(1, "big"), zlib.crc32(body, version).to_bytes(4, "big"), body))
    if seal is None:
        raise ValueError(f"batches of version {version} are sealed, and there is nothing to seal this one with")
    return b"".join((MAGIC, version.to_bytes(1, "big"), seal.seal(version, body)))


def decode_batch(payload: bytes, versions: Versions, book: HeadBook, seal: Seal | None = None) -> Batch:
    """The inverse of `encode_batch`.

    Raises:
        UnsealedBatch: A version without a seal, below `versions`, which are sealed.
        ForeignBatch: No magic, or another version outside `versions`.
        ForgedBatch: It is not sealed as `seal` would. Nothing of what is in it has been looked at.
        CorruptBatch: The checksum, the msgpack or the shape is wrong.
    """
    if len(payload) < _CHECKED or payload[:2] != MAGIC:
        raise ForeignBatch(f"{len(payload)} bytes that are no batch")
    version = payload[2]
    if not versions[0] <= version <= versions[1]:
        foreign = UnsealedBatch if 0 < version < SEALED <= versions[0] else ForeignBatch
        raise foreign(f"a batch of version {version}, but {versions[0]} to {versions[1]} are spoken here")
    if version < SEALED:
        body = payload[_CHECKED:]
        if zlib.crc32(body, version) != int.from_bytes(payload[_PREFIX:_CHECKED], "big"):
            raise CorruptBatch(f"a batch of {len(payload)} bytes does not have its checksum")
    else:
        opened = None if seal is None else seal.open(version, payload[_PREFIX:])
        if opened is None:
            raise ForgedBatch(f"a batch of {len(payload)} bytes does not have the seal of its sender")
        body = opened
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
