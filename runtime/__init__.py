"""Where it runs: edge, node, tenants, command line."""

from ..actors.session import (
    ANONYMOUS,
    HostingError,
    LiveObjects,
    NoSession,
    Session,
    StateError,
    TenantContext,
    TurnSession,
    current_session,
)
from ..stores import UnderstudyError
from .errors import ConfigurationError, NotStarted
from .runtime import Era, Runtime
from .tenants import Forbidden, TenantResolver, Unauthenticated

__all__ = [
    "ANONYMOUS",
    "ConfigurationError",
    "Era",
    "Forbidden",
    "HostingError",
    "LiveObjects",
    "NoSession",
    "NotStarted",
    "Runtime",
    "Session",
    "StateError",
    "TenantContext",
    "TenantResolver",
    "TurnSession",
    "Unauthenticated",
    "UnderstudyError",
    "current_session",
]
