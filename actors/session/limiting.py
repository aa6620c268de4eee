"""`CallLimits`: the seam behind which it is said how much a tenant, or a session, may use."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from ...stores import Address
from .tenant import TenantContext

if TYPE_CHECKING:
    from .messages import Call

__all__ = ["CallLimits"]


class CallLimits(Protocol):
    """Asked by the session actor, and around modern calls without one (`session` is None). Must be quick."""

    def begin(self, call: Call, session: Address | None, *, read_only: bool) -> Awaitable[None] | None:
        """`call` is about to run its handler. Something to await where that cannot be told at once.

        `read_only`: of a tool, that it is annotated so. A call that this refuses has not run, and counts for nothing.

        Raises:
            LimitExceeded: It must not.
        """
        ...

    def check_result(self, call: Call, session: Address | None, result: dict[str, Any]) -> None:
        """`call` has run, and `result` is what its client is about to get; nothing that it changed is saved yet.

        Raises:
            LimitExceeded: The result is too large. The call counts as failed, and changes nothing.
        """
        ...

    def max_state(self, tenant: TenantContext, present: int, most: int) -> int:
        """How many bytes the state of a session, which takes `present`, may take after this turn: at most `most`."""
        ...

    def state_changed(self, tenant: str, grown: int) -> None:
        """A session's saved state takes so many bytes more, or, negative, less."""
        ...

    def opening(self, tenant: TenantContext) -> Awaitable[None] | None:
        """A session is about to be opened by handle. Something to await where that cannot be told at once.

        Raises:
            LimitExceeded: The tenant has as many as it may have.
        """
        ...

    def not_opened(self, tenant: TenantContext) -> None:
        """What `opening` allowed has failed."""
        ...
