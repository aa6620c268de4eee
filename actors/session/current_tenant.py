"""`current_tenant`: who the running call belongs to, with a session and without one."""

from __future__ import annotations

from .errors import NoSession
from .tenant import TenantContext
from .tenants.running import RUNNING
from .tenants.uris import uri_template

__all__ = ["current_tenant", "tenant_here", "tenant_uri", "tenant_uri_template"]


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
    running = RUNNING.get()
    return None if running is None else running.tenant


def tenant_uri(*segments: str | int, scheme: str = "resource") -> str:
    """`TenantContext.uri` of the running call's tenant.

    Raises:
        NoSession: No call is running here.
        URIRefused: As `TenantContext.uri`.
    """
    return current_tenant().uri(*segments, scheme=scheme)


def tenant_uri_template(path: str, *, scheme: str = "resource") -> str:
    """A template of the URIs that `tenant_uri` makes, whichever tenant's: `tenant_uri_template("orders/{number}")`.

    The function has a parameter `tenant`, and that is the running call's: the runtime has refused any other.

    Raises:
        URIRefused: `path` or the scheme cannot be part of one.
    """
    return uri_template(path, scheme)
