"""Where it runs: edge, node, tenants, command line.

Names are imported when first used: `understudy --help` should not wait for the MCP SDK.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..actors.session import (
        ANONYMOUS,
        HostingError,
        LiveObjects,
        NoSession,
        NoStandingStream,
        NotificationRefused,
        Session,
        StateError,
        TenantContext,
        TurnSession,
        current_session,
    )
    from ..stores import UnderstudyError
    from .cluster import ClusterOptions
    from .errors import ConfigurationError, NotStarted
    from .runtime import Era, Runtime
    from .session_errors import SessionNotFound, SessionUnavailable
    from .session_reference import SessionReference
    from .tenants import Forbidden, TenantResolver, Unauthenticated

__all__ = [
    "ANONYMOUS",
    "ClusterOptions",
    "ConfigurationError",
    "Era",
    "Forbidden",
    "HostingError",
    "LiveObjects",
    "NoSession",
    "NoStandingStream",
    "NotStarted",
    "NotificationRefused",
    "Runtime",
    "Session",
    "SessionNotFound",
    "SessionReference",
    "SessionUnavailable",
    "StateError",
    "TenantContext",
    "TenantResolver",
    "TurnSession",
    "Unauthenticated",
    "UnderstudyError",
    "current_session",
]

_ELSEWHERE = {
    "ClusterOptions": ".cluster",
    "ConfigurationError": ".errors",
    "Era": ".runtime",
    "Forbidden": ".tenants",
    "NotStarted": ".errors",
    "Runtime": ".runtime",
    "SessionNotFound": ".session_errors",
    "SessionReference": ".session_reference",
    "SessionUnavailable": ".session_errors",
    "TenantResolver": ".tenants",
    "Unauthenticated": ".tenants",
    "UnderstudyError": "..stores",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "..actors.session"), __name__), name)
    globals()[name] = value
    return value
