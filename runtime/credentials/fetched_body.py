"""`read_body`: what another server answers, of which no more is kept than was asked for, compressed or not."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable
from typing import Final

from ...stores import UnderstudyError

__all__ = ["ACCEPTED_ENCODINGS", "FetchedBodyError", "read_body"]

ACCEPTED_ENCODINGS: Final = "gzip, identity"
"""For the header `accept-encoding`."""
_GZIP: Final = frozenset({"gzip", "x-gzip"})


class FetchedBodyError(UnderstudyError):
    """An answer that is too large, or is compressed as nobody asked for."""


async def read_body(parts: AsyncIterable[bytes], encoding: str, largest: int) -> bytes:
    """The body that arrives in `parts`, as it was before it was compressed.

    A kilobyte of gzip may stand for a megabyte, and gzip within gzip for a million times as much. So it is not the
    HTTP client that decompresses: here it goes on for as long as there is room for what comes of it, and no further.

    Args:
        parts: As they come from the network.
        encoding: The header `content-encoding`, empty where there is none.
        largest: Bytes that the body may have, and its parts together.

    Raises:
        FetchedBodyError: It is larger, breaks off, or has another encoding than gzip, once.
    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", *_GZIP):
        raise FetchedBodyError(f"the answer has the encoding {encoding[:64]!r}; gzip is taken, once, or none")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding in _GZIP else None
    body = bytearray()
    arrived = 0
    async for part in parts:
        arrived += len(part)
        body += part if unpacking is None else _unpacked(unpacking, part, largest + 1 - len(body))
        if len(body) > largest or arrived > largest:
            raise FetchedBodyError(f"the answer is larger than {largest} bytes")
    if unpacking is not None and (not unpacking.eof or unpacking.unused_data):
        raise FetchedBodyError("the answer says that it is gzip, and does not end as gzip does")
    return bytes(body)


def _unpacked(unpacking: zlib._Decompress, part: bytes, room: int) -> bytes:  # pyright: ignore[reportPrivateUsage]
    try:
        return unpacking.decompress(part, room)
    except zlib.error:
        raise FetchedBodyError("the answer says that it is gzip, and is none") from None
