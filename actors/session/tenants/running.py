"""`RUNNING`: the tenant that the running call belongs to, and what its runtime has for tenants."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from .errors import NoCall, WrongTenant

if TYPE_CHECKING:
    from ..tenant import TenantContext
    from .helpers import TenantHelpers

__all__ = ["RUNNING", "Running", "helpers_for"]


class Running(NamedTuple):
    """What is running: whose call, and at which runtime. `helpers` is None where the runtime offers none."""

    tenant: TenantContext
    helpers: TenantHelpers | None = None


RUNNING: ContextVar[Running | None] = ContextVar("understudy_running", default=None)
"""Set where a call's handler is run. Tasks that a tool starts, and threads of sync tools, have a copy."""


def helpers_for(tenant: TenantContext) -> TenantHelpers:
    """What the runtime of the running call has for `tenant`, which must be the call's.

    no-wrong-tenant: a context that was kept from an earlier call is worth nothing in another party's.

    Raises:
        NoCall: No call is running here, or its runtime has stopped.
        WrongTenant: The running call is another party's.
    """
    running = RUNNING.get()
    if running is None or running.helpers is None or running.helpers.closed:
        raise NoCall
    theirs = running.tenant
    if theirs is not tenant and (theirs.tenant != tenant.tenant or theirs.principal != tenant.principal):
        raise WrongTenant
    return running.helpers
