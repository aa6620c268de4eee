"""msgpack for frames: what would not come back as it was put in is not packed."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from ...actors.packing import strict_packer
from .errors import Unsendable

__all__ = ["pack_strictly"]


def _refuse(value: Any) -> NoReturn:
    raise Unsendable(f"a frame cannot hold a {type(value).__name__}")


pack_strictly: Final = strict_packer(_refuse)
"""Raises: Unsendable, TypeError, ValueError, OverflowError, RecursionError: What is to be packed holds another type."""
