"""How HTTP headers are written: as a list in versions 1 and 2, as one piece from version 3 on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from .errors import Unsendable

__all__ = ["Headers", "decode_headers", "encode_headers", "join_headers", "split_headers"]

Headers = list[tuple[bytes, bytes]]

_BETWEEN: Final = b"\n"
"""Between names and values; HTTP allows it in neither."""


def encode_headers(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Name and value in turns.

    Raises:
        TypeError: Something else than bytes is among them.
    """
    flat = [part for header in headers for part in header]
    b"".join(flat)  # refuses, in C, what the other end would not take for a header
    return flat


def decode_headers(raw: Any) -> Headers:
    """Name and value in turns, as pairs.

    Raises:
        ValueError: It is no such list.
    """
    if raw.__class__ is not list:
        raise ValueError("headers are no list of names and values")
    flat: list[bytes] = raw
    try:
        b"".join(flat)
    except TypeError:
        raise ValueError("a header is not bytes") from None
    return _pairs(flat)


def join_headers(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """All in one piece: a list is packed and unpacked at ten times the price, and cannot be looked up.

    Raises:
        TypeError: Something else than bytes is among them.
        Unsendable: A name or value holds a line feed, or something is no pair.
    """
    joined = _BETWEEN.join(chain.from_iterable(headers))
    if joined.count(_BETWEEN) != max(2 * len(headers) - 1, 0):
        raise Unsendable("a header that holds a line feed, or is no name with a value, cannot cross between nodes")
    return joined


def split_headers(joined: bytes) -> Headers:
    """The inverse of `join_headers`.

    Raises:
        ValueError: It is nothing that it writes.
    """
    return _pairs(joined.split(_BETWEEN)) if joined else []


def _pairs(flat: list[bytes]) -> Headers:
    parts = iter(flat)
    return list(zip(parts, parts, strict=True))  # a name without a value is a ValueError
