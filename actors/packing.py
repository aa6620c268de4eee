"""msgpack, typed. The library ships no types; this is the one file that has to look away."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgpack

__all__ = ["pack", "strict_packer", "unpack"]


def pack(value: Any) -> bytes:
    """`value` as msgpack.

    Raises:
        TypeError, ValueError, OverflowError: `value` holds what msgpack cannot carry.
    """
    return cast("bytes", msgpack.packb(value))


def unpack(packed: bytes) -> Any:
    """The inverse of `pack` and of a strict packer: time stamps become aware datetimes, map keys may be of any kind.

    Raises:
        ValueError: Truncated, trailing bytes, or not msgpack.
    """
    try:
        return msgpack.unpackb(packed, strict_map_key=False, timestamp=3)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"not msgpack: {error!r}") from error


def strict_packer(refuse: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    """A `pack` that calls `refuse(value)` for each value that would not come back as it was put in.

    Those are tuples, sets, instances of subclasses (an `Enum`, an `OrderedDict`) and everything else msgpack lacks.
    """
    packer = msgpack.Packer(use_bin_type=True, strict_types=True, datetime=True, default=refuse)

    def pack_strictly(value: Any) -> bytes:
        try:
            packed: bytes = packer.pack(value)
        except BaseException:
            packer.reset()
            raise
        return packed

    return pack_strictly
