"""Refusing a request."""

from __future__ import annotations

from mcp_types import RequestId

from ..actors.session.wire import Refusal, error_message
from .http import JSON_TYPE, Send, answer

__all__ = ["refuse"]


async def refuse(
    send: Send, refusal: Refusal, *headers: tuple[bytes, bytes], request_id: RequestId | None = None
) -> None:
    """Answer with a JSON-RPC error body and the refusal's status."""
    extra = list(headers)
    if refusal.retry_after is not None:
        extra.append((b"retry-after", str(max(1, round(refusal.retry_after))).encode()))
    await answer(send, refusal.status, error_message(request_id, refusal), headers=(JSON_TYPE, *extra))
