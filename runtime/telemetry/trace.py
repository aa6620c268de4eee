"""`TRACE`: the id of the request that is being handled, the same at every node that it passes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from os import urandom
from typing import Final

__all__ = ["TRACE", "trace_of"]

TRACE: ContextVar[str] = ContextVar("understudy_request_id", default="")

_WORD: Final = re.compile(rb"[A-Za-z0-9_.:+/=-]{1,64}")


def trace_of(headers: Mapping[bytes, bytes]) -> str:
    """`X-Request-Id`, where whoever is before us has set one that may stand in a log; otherwise a new id."""
    given = headers.get(b"x-request-id")
    if given is not None and _WORD.fullmatch(given):
        return given.decode()
    return urandom(8).hex()
