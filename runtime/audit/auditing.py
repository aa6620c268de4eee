"""What of a node's work goes into its audit trail: refusals at the edge, outcomes of calls, sessions that end."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from mcp_types import RequestId

from ...actors.departure import Departure
from ...actors.session import TenantContext
from ...actors.session.handles import OPEN_SESSION
from ...actors.session.messages import Call
from ...actors.session.snapshot import SessionSnapshot
from ...actors.session.wire import Refusal
from ...stores import Address
from ..telemetry.logs import SESSION_SHOWN
from ..telemetry.outcomes import is_unknown, outcome_of
from ..telemetry.tenant_tally import TenantTally
from ..telemetry.trace import TRACE
from .audit import AuditTrail
from .audit_entry import AuditEntry, AuditEvent

__all__ = ["Asking", "AuditedCall", "audit_end", "audit_opening", "audit_refusal", "audit_update"]


class Asking:
    """The request that is being handled in this context, as far as it is known."""

    __slots__ = ("forwarded", "method", "session", "tenant", "trail")

    def __init__(
        self,
        trail: AuditTrail,
        method: str,
        session: Address | None,
        tenant: TenantContext | None = None,
        *,
        forwarded: bool = False,
    ) -> None:
        self.trail = trail
        self.method = method
        self.session = session
        self.tenant = tenant
        self.forwarded = forwarded
        _ASKING.set(self)


_ASKING: ContextVar[Asking | None] = ContextVar("understudy_asking", default=None)


def audit_refusal(refusal: Refusal, request_id: RequestId | None) -> None:
    """Write down that the request of this context is refused, if there is an audit trail."""
    asking = _ASKING.get()
    if asking is not None:
        # A node that died with the call is no refusal: it may have run.
        unknown = is_unknown(refusal)
        limit = _limit(refusal)
        outcome = str(refusal.status) if limit is None else f"limit: {limit}"
        _note(
            asking.trail,
            "called" if unknown else "refused",
            "unknown" if unknown else outcome,
            asking.tenant,
            None if asking.session is None else asking.session.id,
            method=asking.method,
            request_id=request_id,
            trace=TRACE.get(),
            forwarded=asking.forwarded,
        )


class AuditedCall:
    """Told of the outcome of one call, once. Made in the context of its request."""

    __slots__ = ("_forwarded", "_session", "_tally", "_trace", "_trail")

    def __init__(
        self, trail: AuditTrail, session: Address | None, tally: TenantTally | None, *, forwarded: bool
    ) -> None:
        """`session`: None where the call's arguments may name it. `tally` counts it too."""
        self._trail = trail
        self._tally = tally
        self._session = session
        self._forwarded = forwarded
        self._trace = TRACE.get()

    def __call__(self, call: Call, result: dict[str, Any] | None) -> None:
        if self._tally is not None:
            self._tally(call, result)
        exchange = call.exchange
        if exchange.elsewhere is not None or exchange.no_room is not None:
            # It has not run here: whoever runs it, or refuses it for want of room, writes it down.
            return
        params = call.params or {}
        tool = params.get("name") if call.method == "tools/call" else None
        arguments: Any = params.get("arguments")
        session: Any = arguments.get("session") if isinstance(arguments, dict) else None  # pyright: ignore
        if self._session is not None:
            session = self._session.id
        event, outcome = _judged(exchange.refusal, result)
        if call.over is not None:
            # What was too much of a result has run.
            event, outcome = "called" if call.over.ran else "refused", f"limit: {call.over.limit}"
        if outcome == "result" and call.method == "initialize":
            event = "opened"
        elif outcome == "result" and tool == OPEN_SESSION and self._session is None:
            structured: dict[str, Any] = (result or {}).get("structuredContent") or {}
            opened = structured.get("session")
            if isinstance(opened, str):
                event, session = "opened", opened
        _note(
            self._trail,
            event,
            outcome,
            call.tenant,
            session if isinstance(session, str) else None,
            method=call.method,
            tool=tool if isinstance(tool, str) else None,
            request_id=call.id,
            trace=self._trace,
            forwarded=self._forwarded,
        )


def audit_opening(trail: AuditTrail, address: Address, tenant: TenantContext) -> None:
    """Write down that the host program has opened a session for `tenant`."""
    _note(trail, "opened", "result", tenant, address.id)


def audit_update(trail: AuditTrail, address: Address, session: SessionSnapshot) -> None:
    """Write down that the host program has changed the state of a session (or would have, had it not done so before:
    an update that has a name is made once).
    """
    _note(trail, "updated", "result", TenantContext(session.tenant, session.principal), address.id)


def audit_end(trail: AuditTrail, address: Address, session: SessionSnapshot, departure: Departure) -> None:
    """Write down that a session is over: a `SessionEnded`, once it has its `trail`."""
    # Of a record that cannot be read nobody knows whose it was, but for the tenant.
    principal = session.principal or "?"
    _note(trail, "ended", departure.value, TenantContext(session.tenant, principal), address.id)


def _judged(refusal: Refusal | None, result: dict[str, Any] | None) -> tuple[AuditEvent, str]:
    outcome = outcome_of(refusal, result)
    if outcome == "refused" and refusal is not None:
        return "refused", str(refusal.status)
    return "called", outcome


def _limit(refusal: Refusal) -> str | None:
    limit: Any = refusal.data.get("limit") if isinstance(refusal.data, dict) else None  # pyright: ignore
    return limit if isinstance(limit, str) else None


def _note(
    trail: AuditTrail,
    event: AuditEvent,
    outcome: str,
    tenant: TenantContext | None,
    session: str | None,
    *,
    method: str | None = None,
    tool: str | None = None,
    request_id: RequestId | None = None,
    trace: str = "",
    forwarded: bool = False,
) -> None:
    trail.note(
        AuditEntry(
            trail.clock(),
            event,
            outcome,
            trail.node,
            None if tenant is None else tenant.tenant,
            None if tenant is None else tenant.principal,
            None if session is None else session[:SESSION_SHOWN],
            None if method is None else method[:128],
            None if tool is None else tool[:128],
            request_id[:64] if isinstance(request_id, str) else request_id,
            trace or None,
            forwarded,
        )
    )
