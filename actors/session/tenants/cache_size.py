"""`estimated_size`: about how many bytes of memory a value takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, cast

__all__ = ["MOST_PARTS", "estimated_size"]

MOST_PARTS: Final = 20_000
"""Objects inside a value that are looked at; one with more is taken to be as large on average as what was seen."""


def estimated_size(value: object) -> int:
    """Bytes, an estimate: what `sys.getsizeof` says of `value` and of all that it holds, each object once.

    Looked into are mappings, sequences and sets of Python's own, and the attributes of other objects; not what a
    library keeps outside of Python's memory without telling.
    """
    seen: set[int] = set()
    waiting: list[Any] = [value]
    size = 0
    while waiting and len(seen) < MOST_PARTS:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        size += _own_size(part)
        _look_into(part, waiting)
    if waiting:
        size += len(waiting) * (size // len(seen))
    return size


def _own_size(part: object) -> int:
    try:
        return sys.getsizeof(part, 64)
    except Exception:
        # An object with a `__sizeof__` of its own, that fails.
        return 64


def _look_into(part: Any, waiting: list[Any]) -> None:
    if isinstance(part, str | bytes | bytearray | int | float | complex | bool | type) or part is None:
        return
    if isinstance(part, Mapping):
        for key, item in cast("Mapping[Any, Any]", part).items():
            waiting += (key, item)
    elif isinstance(part, list | tuple | set | frozenset):
        waiting.extend(cast("list[Any]", part))
    else:
        attributes = getattr(part, "__dict__", None)
        if isinstance(attributes, dict):
            waiting.append(attributes)
        for kind in type(part).__mro__:
            names: Any = kind.__dict__.get("__slots__", ())
            for name in (names,) if isinstance(names, str) else tuple(names):
                if name not in ("__dict__", "__weakref__"):
                    held = getattr(part, _mangled(kind, name), None)
                    if held is not None:
                        waiting.append(held)


def _mangled(kind: type, name: str) -> str:
    if name.startswith("__") and not name.endswith("__"):
        return f"_{kind.__name__.lstrip('_')}{name}"
    return name
