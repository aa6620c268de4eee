"""Refusing a request."""

from __future__ import annotations

from mcp_types import RequestId

from ...actors.session.wire import Refusal, error_message
from ..audit.auditing import audit_refusal
from ..telemetry.outcomes import is_unknown
from ..telemetry.tenant_tally import count_refusal
from .http import JSON_TYPE, Send, answer

__all__ = ["Refused", "refuse", "with_retry_after"]


class Refused(Exception):
    """The request will not do. `refusal` says why, in the words for the client."""

    def __init__(self, refusal: Refusal, request_id: RequestId | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.request_id = request_id


async def refuse(
    send: Send, refusal: Refusal, *headers: tuple[bytes, bytes], request_id: RequestId | None = None
) -> None:
    """Answer with a JSON-RPC error body and the refusal's status."""
    audit_refusal(refusal, request_id)
    if not is_unknown(refusal):
        # A node that died with the call is no refusal: it may have run.
        count_refusal(refusal.status)
    body = error_message(request_id, refusal)
    await answer(send, refusal.status, body, headers=with_retry_after(refusal, *headers))


def with_retry_after(refusal: Refusal, *headers: tuple[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of a JSON answer that refuses; `Retry-After` in whole seconds, one at least."""
    if refusal.retry_after is None:
        return (JSON_TYPE, *headers)
    return (JSON_TYPE, *headers, (b"retry-after", str(max(1, round(refusal.retry_after))).encode()))
