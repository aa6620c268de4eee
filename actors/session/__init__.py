"""The session kind of actor: one MCP conversation, run by the SDK's kernel."""

from .current_tenant import current_tenant, tenant_uri, tenant_uri_template
from .errors import (
    DuplicateRequest,
    ForeignSession,
    HostingError,
    LimitExceeded,
    NoSession,
    NoStandingStream,
    NotificationRefused,
    ReadOnlyTurn,
    RequestCancelled,
    SessionError,
    StateConflict,
    StateError,
    TurnOver,
)
from .live import LiveObjects
from .requirement import requires
from .session import Session, TurnSession, current_session
from .session_actor import SessionActor
from .session_kind import SESSION, SessionKind, SessionSeed
from .snapshot import SessionSnapshot
from .tenant import ANONYMOUS, TenantContext

__all__ = [
    "ANONYMOUS",
    "SESSION",
    "DuplicateRequest",
    "ForeignSession",
    "HostingError",
    "LimitExceeded",
    "LiveObjects",
    "NoSession",
    "NoStandingStream",
    "NotificationRefused",
    "ReadOnlyTurn",
    "RequestCancelled",
    "Session",
    "SessionActor",
    "SessionError",
    "SessionKind",
    "SessionSeed",
    "SessionSnapshot",
    "StateConflict",
    "StateError",
    "TenantContext",
    "TurnOver",
    "TurnSession",
    "current_session",
    "current_tenant",
    "requires",
    "tenant_uri",
    "tenant_uri_template",
]
