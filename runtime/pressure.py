"""Memory pressure: whether the process has grown beyond what it was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .errors import ConfigurationError

__all__ = ["memory_pressure"]

_STATM = Path("/proc/self/statm")


def memory_pressure(limit: int) -> Callable[[], bool]:
    """A function that says whether the process resides in more than `limit` bytes.

    Raises:
        ConfigurationError: This system does not tell (no `/proc/self/statm`).
    """
    if not _STATM.exists():
        raise ConfigurationError("max_memory needs /proc/self/statm, which this system lacks; use max_sessions")
    page = os.sysconf("SC_PAGE_SIZE")

    def pressed() -> bool:
        return int(_STATM.read_text().split()[1]) * page > limit

    return pressed
