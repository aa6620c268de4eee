"""Running a piece of code as a tool of some tenant's would run, without a server."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from understudy.actors.session.tenants.helpers import TenantHelpers
from understudy.actors.session.tenants.running import RUNNING, Running
from understudy.runtime import TenantContext


@contextmanager
def as_tenant(helpers: TenantHelpers | None, tenant: str, principal: str = "ada") -> Generator[TenantContext]:
    """Within it a call of this party runs."""
    context = TenantContext(tenant, principal)
    token = RUNNING.set(Running(context, helpers))
    try:
        yield context
    finally:
        RUNNING.reset(token)
