"""`current_tenant`: who the running call belongs to, with a session and without one."""

from __future__ import annotations

from contextvars import ContextVar

from .errors import NoSession
from .session import CURRENT
from .tenant import TenantContext

__all__ = ["current_tenant", "tenant_here"]

STATELESS: ContextVar[TenantContext | None] = ContextVar("understudy_stateless_tenant", default=None)
"""The tenant of a call that belongs to no session."""


def current_tenant() -> TenantContext:
    """Who asks, by the credential of the request whose call is running; `session.tenant` for code that has no session.

    Raises:
        NoSession: No call is running here.
    """
    tenant = tenant_here()
    if tenant is None:
        raise NoSession("no tenant here: this code runs outside a call hosted by understudy")
    return tenant


def tenant_here() -> TenantContext | None:
    """`current_tenant`, or None where no call is running."""
    session = CURRENT.get()
    return STATELESS.get() if session is None else session.tenant
