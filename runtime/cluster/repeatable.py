"""Whether a request may be sent twice (never-run-twice), told from its body when it comes to that."""

from __future__ import annotations

from typing import NamedTuple

from mcp_types import RequestId

from ...actors.session.protocol_state import PROTOCOL_READS
from ...actors.session.servers import Servers
from ..wire.inbound import Inbound
from ..wire.jsonrpc import Answer, Notification, Request, read_message
from ..wire.refusals import Refused

__all__ = ["Sort", "sort_of"]


class Sort(NamedTuple):
    """What a request is, as far as its failure is concerned."""

    repeatable: bool
    request_id: RequestId | None = None
    """Of the JSON-RPC request in it."""
    expects_answer: bool = True
    """False for a notification, and for the client's answer to a question: 202 is all it gets."""


async def sort_of(inbound: Inbound, servers: Servers) -> Sort:
    """Read what the edge has only passed on. Costs a parse, and is asked only after a failure.

    A request may be repeated if it is a GET (which only listens), a DELETE (the session is gone after it, however often
    it is sent), a method of the protocol that only reads, or a tool annotated `readOnlyHint` or `idempotentHint`. An
    answer to a question and a cancellation may be too: when the second comes, nobody waits any more.
    """
    if inbound.scope["method"] != "POST":
        return Sort(repeatable=True)
    try:
        message = read_message(inbound.body)
    except Refused as refused:
        return Sort(repeatable=True, request_id=refused.request_id)
    if type(message) is Answer:
        return Sort(repeatable=True, expects_answer=False)
    if type(message) is Notification:
        return Sort(repeatable=message.method == "notifications/cancelled", expects_answer=False)
    assert type(message) is Request
    if message.method in PROTOCOL_READS:
        return Sort(repeatable=True, request_id=message.id)
    if message.method != "tools/call":
        return Sort(repeatable=False, request_id=message.id)
    try:
        repeatable = await servers.may_repeat(inbound.tenant, (message.params or {}).get("name"))
    except Exception:
        repeatable = False
    return Sort(repeatable, request_id=message.id)
