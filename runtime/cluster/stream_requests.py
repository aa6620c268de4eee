"""What an owner is asked in place of a client's request, once that may have run: for its stream, or the rest of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ..edge.repeats import FIRST_TRY, NO_EVENT
from ..wire.inbound import Inbound

__all__ = ["first_try", "resumption"]

_OF_A_BODY: Final = frozenset((b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"))


def resumption(inbound: Inbound, last_id: bytes) -> Inbound:
    """What a client that has got the stream of `inbound` up to the event `last_id` would send to have the rest."""
    scope: dict[str, Any] = dict(inbound.scope)
    scope["method"] = "GET"
    lines = [line for line in inbound.scope["headers"] if line[0] not in _OF_A_BODY and line[0] != b"last-event-id"]
    scope["headers"] = [*lines, (b"last-event-id", last_id)]
    headers = {name: value for name, value in inbound.headers.items() if name not in _OF_A_BODY}
    headers[b"last-event-id"] = last_id
    return replace(inbound, scope=scope, headers=headers, body=b"")


def first_try(inbound: Inbound) -> Inbound:
    """What asks for the stream of the call in `inbound`, if that is in flight, and runs nothing, whoever reads it."""
    return replace(resumption(inbound, NO_EVENT.encode()), body=inbound.body, purpose=FIRST_TRY)
