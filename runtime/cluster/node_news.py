"""How a node's news is written down in its lease."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, cast

from ...actors.packing import pack, unpack
from .entry import is_incarnation
from .peers import NodeNews

__all__ = ["pack_news", "unpack_news"]

_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "incarnation": str,
    "lease": (int, float),
    "url": str,
    "pid": int,
    "host": str,
    "sessions": int,
    "capacity": int,
    "draining": bool,
    "versions": tuple,
    "serial": int,
    "build": str,
    "store": str,
    "next_store": str,
    "former_store": str,
    "left": bool,
    "bus": str,
    "published": int,
    "keys": tuple,
    "leaving": bool,
}


def pack_news(news: NodeNews) -> bytes:
    """A map by field name, so that a later version may add to it."""
    return pack({name: getattr(news, name) for name in _TYPES})


def unpack_news(packed: bytes) -> NodeNews | None:
    """None for what is no node's news: it is dropped, whoever wrote it."""
    try:
        found: Any = unpack(packed)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    values: dict[str, Any] = {}
    for name, value in cast("dict[Any, Any]", found).items():
        expected = _TYPES.get(name) if isinstance(name, str) else None
        if expected is None:
            continue
        if name == "versions":
            match value:
                case [int(oldest), int(newest)] if 0 < oldest <= newest:
                    value = (oldest, newest)
                case _:
                    return None
        elif name == "keys":
            if not isinstance(value, list) or len(cast("list[Any]", value)) > _MOST_KEYS:
                return None
            value = tuple(str(key)[:_FINGERPRINT] for key in cast("list[Any]", value))
        if not isinstance(value, expected):
            return None
        values[name] = value
    incarnation = values.get("incarnation", "")
    if "lease" not in values or not 0 < values["lease"] <= _LONGEST_LEASE or not is_incarnation(incarnation):
        return None
    return NodeNews(**values)


_LONGEST_LEASE: Final = 3600.0
_MOST_KEYS: Final = 64
_FINGERPRINT: Final = 64
"""Characters."""

assert set(_TYPES) == {field.name for field in fields(NodeNews)}, "each field of NodeNews needs its type here"
