"""What a request is told that its actor does not answer."""

from __future__ import annotations

from typing import Final

from mcp_types import INTERNAL_ERROR, INVALID_REQUEST

from ...actors.session.servers import Servers
from ...actors.session.wire import OUTCOME_UNKNOWN, SERVER_BUSY, Refusal
from ..wire.inbound import Inbound
from .repeatable import sort_of
from .response import Response
from .steps import Denial

__all__ = ["FAILED", "REFUSALS", "TOO_LARGE", "UNSENDABLE", "deny", "turn_down"]

TOO_LARGE: Final = Refusal(INVALID_REQUEST, "Request body too large", status=413)
UNSENDABLE: Final = Refusal(INVALID_REQUEST, "Request headers too large", status=431)
FAILED: Final = Refusal(INTERNAL_ERROR, "Internal server error", status=500)
REFUSALS: Final = {
    Denial.BUSY: Refusal(SERVER_BUSY, "The server takes no more sessions now", None, 503, 1.0),
    Denial.UNAVAILABLE: Refusal(SERVER_BUSY, "The session is not available now; nothing was changed", None, 503, 1.0),
    Denial.IN_DOUBT: OUTCOME_UNKNOWN,
}


async def deny(inbound: Inbound, response: Response, denial: Denial, servers: Servers) -> None:
    """End `response` with the refusal for `denial`, which is neither UNKNOWN nor ELSEWHERE."""
    await turn_down(inbound, response, REFUSALS[denial], servers)


async def turn_down(inbound: Inbound, response: Response, refusal: Refusal, servers: Servers) -> None:
    """End `response` with `refusal`, as what was asked wants to hear of it."""
    sort = await sort_of(inbound, servers)
    if not sort.expects_answer and refusal is OUTCOME_UNKNOWN:
        # At most once is all that a notification is promised.
        await response.accept()
        return
    await response.refuse(refusal, sort.request_id)
