"""`ASKER`: who sent the request that is being handled, for whatever speaks of it: log lines and the like."""

from __future__ import annotations

from contextvars import ContextVar

from ...actors.session import TenantContext

__all__ = ["ASKER"]

ASKER: ContextVar[TenantContext | None] = ContextVar("understudy_asker", default=None)
"""None: nobody asks here, or it is not known yet who does."""
