"""How replies are called: none of them may raise, and one that does harms nobody but its owner."""

from __future__ import annotations

import logging
from typing import Any

from .envelope import Reply

__all__ = ["fail", "resolve"]

logger = logging.getLogger("understudy.actors")


def resolve(reply: Reply | None, result: Any) -> None:
    """Give `reply`, if anybody waits, the result of its turn."""
    if reply is None:
        return
    try:
        reply.resolve(result)
    except Exception:
        logger.exception("a reply raised instead of taking a result of type %s", type(result).__name__)


def fail(reply: Reply | None, error: BaseException) -> None:
    """Give `reply`, if anybody waits, the reason why there is no result."""
    if reply is None:
        return
    try:
        reply.fail(error)
    except Exception:
        logger.exception("a reply raised instead of taking %r", error)
