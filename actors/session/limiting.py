"""`Allowance`, `CallLimits`: the seams behind which it is said how much a tenant, or a session, may use."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from .tenant import TenantContext

if TYPE_CHECKING:
    from .messages import Call

__all__ = ["Allowance", "CallLimits"]


class Allowance(Protocol):
    """What one call may use. Whoever brings a call has it entered, and leaves this with it: see `Call.allowance`.

    Asked by what runs the call, the session actor or whoever serves calls without one. Must be quick.
    """

    @property
    def bounds_results(self) -> bool:
        """Whether `check_result` has to be asked."""
        ...

    @property
    def bounds_state(self) -> bool:
        """Whether `max_state` has to be asked."""
        ...

    def begin(self, call: Call, *, stateful: bool, read_only: bool) -> Awaitable[None] | None:
        """`call` is about to run its handler. Something to await where that cannot be told at once.

        `stateful`: in a session. `read_only`: of a tool, that it is annotated so. A call that this refuses has not run,
        and counts for nothing.

        Raises:
            LimitExceeded: It must not.
        """
        ...

    def check_result(self, call: Call, result: dict[str, Any], *, stateful: bool) -> None:
        """`call` has run, and `result` is what its client is about to get; nothing that it changed is saved yet.

        Raises:
            LimitExceeded: The result is too large. The call counts as failed, and changes nothing.
        """
        ...

    def max_state(self, present: int, most: int) -> int:
        """How many bytes the state of the session, which takes `present`, may take after this turn: at most `most`."""
        ...


class CallLimits(Protocol):
    """Told of what sessions keep, and of sessions that come."""

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
