"""`RUNNING`: the tenant that the running call belongs to, and what its runtime has for tenants."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from .errors import NoCall, WrongTenant

if TYPE_CHECKING:
    from ..tenant import TenantContext
    from .helpers import TenantHelpers

__all__ = ["RUNNING", "Running", "helpers_for", "refuse_others"]


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
    if not _same_party(running.tenant, tenant):
        raise WrongTenant
    return running.helpers


def refuse_others(owner: TenantContext) -> None:
    """Return if the running call is of the party `owner`, or none runs here.

    no-wrong-tenant: what a tool keeps of its call where others find it, in a global, is of no use to them.

    Raises:
        WrongTenant: The running call is another party's.
    """
    running = RUNNING.get()
    if running is not None and not _same_party(running.tenant, owner):
        raise WrongTenant


def _same_party(one: TenantContext, other: TenantContext) -> bool:
    return one is other or (one.tenant == other.tenant and one.principal == other.principal)
