"""Sealing: how a stream ends whose writer died in the middle of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any, cast

from mcp_types import RequestId

from ...actors.session.wire import OUTCOME_UNKNOWN, encode, error_message

__all__ = ["closing_events"]

logger = logging.getLogger(__name__)

_REASON = "the node that asked is gone"


def closing_events(request_id: RequestId | None, events: Iterable[bytes]) -> list[bytes]:
    """What ends the stream of a call that may have run: its open questions withdrawn, and one error.

    never-run-twice, no-silent-loss. That a question was answered stands nowhere in the stream: to withdraw one that
    was does no harm.
    """
    withdrawn = [
        encode(
            {
                "jsonrpc": "2.0",
                "method": "notifications/cancelled",
                "params": {"requestId": question, "reason": _REASON},
            }
        )
        for question in _open_questions(events)
    ]
    return [*withdrawn, error_message(request_id, OUTCOME_UNKNOWN)]


def _open_questions(events: Iterable[bytes]) -> list[RequestId]:
    questions: dict[RequestId, None] = {}
    for event in events:
        # Nearly all are progress and log messages, which need no parser to be told apart.
        if b'"id"' not in event and b"notifications/cancelled" not in event:
            continue
        try:
            message = cast("dict[str, Any]", json.loads(event))
            method, id = message.get("method"), message.get("id")
            if method == "notifications/cancelled":
                questions.pop(message["params"]["requestId"], None)
            elif method is not None and isinstance(id, int | str):
                questions[id] = None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            logger.warning("an event of %d bytes in the log is no message", len(event))
    return list(questions)
