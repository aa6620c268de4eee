"""`SessionKind`: how sessions are opened and rehydrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...stores import Address, Record
from ..actor import Cell
from ..errors import Elsewhere, OwnershipLost
from .messages import Merge
from .session_actor import SessionActor
from .snapshot import Origin, SessionSnapshot
from .standalone import Listened, StandaloneStreams
from .tenant import TenantContext

if TYPE_CHECKING:
    from ..registry import Registry
    from .limiting import Allowance, CallLimits
    from .relay import Relay
    from .servers import Servers
    from .tenants.helpers import TenantHelpers

__all__ = ["SESSION", "SessionKind", "SessionSeed", "StandaloneStreams"]

SESSION: Final = "session"
"""The kind of a session's address."""


class SessionSeed(NamedTuple):
    """What a new session starts from: how it was opened, and by whom."""

    origin: Origin
    tenant: TenantContext


class SessionKind:
    """The session kind of actor, with what all sessions of a node have in common."""

    name = SESSION
    durable = True

    def __init__(
        self,
        *,
        servers: Servers,
        streams: StandaloneStreams,
        node_id: str,
        ttl: float,
        max_state: int = 2**20,
        max_subscriptions: int = 1024,
        answer_timeout: float = 600.0,
        interleaved: bool = False,
        helpers: TenantHelpers | None = None,
    ) -> None:
        """`ttl` and `answer_timeout` in seconds, `max_state` in bytes. `helpers`: what tools get from their tenant."""
        self.servers = servers
        self.streams = streams
        self.node_id = node_id
        self._ttl = ttl
        self.max_state = max_state
        self.max_subscriptions = max_subscriptions
        self.answer_timeout = answer_timeout
        self.interleaved = interleaved
        self.helpers = helpers
        self.registry: Registry | None = None
        """The registry that hosts this kind: set by whoever makes both."""
        self.relay: Relay | None = None
        """Told of changed subscriptions; None where nothing is relayed."""
        self.limits: CallLimits | None = None
        """Says how much a tenant may use; None: everything."""
        self.opened: Callable[[Address, SessionSnapshot], None] | None = None
        """Told of each session when its first snapshot is saved. Must be quick, and not raise."""

    async def merge(self, address: Address, before: bytes, after: bytes, allowance: Allowance | None) -> None:
        """Save what an interleaved turn, of a call with `allowance`, changed from `before` to `after`, in an exclusive
        turn of its own.

        Raises:
            StateError: The merged state is too large.
            ActorError: The store refused, or did not answer.
        """
        assert self.registry is not None
        try:
            await self.registry.ask(address, Merge(before, after, allowance), timeout=self.answer_timeout, inner=True)
        except Elsewhere as error:
            # never-run-twice: only the merge has not run; the turn has.
            text = f"{address} has left for another node; what this turn changed was not saved"
            raise OwnershipLost(text, address, retry_after=0.1) from error

    @property
    def ttl(self) -> float:
        return self._ttl

    async def create(self, cell: Cell, seed: Any) -> SessionActor:
        origin, tenant = SessionSeed(*seed)
        return SessionActor(
            self,
            cell,
            SessionSnapshot(origin=origin, tenant=tenant.tenant, principal=tenant.principal, protocol_version=""),
        )

    async def rehydrate(self, cell: Cell, record: Record) -> SessionActor:
        actor = SessionActor(self, cell, SessionSnapshot.unpack(record.snapshot))
        actor.listened = Listened.PERHAPS
        return actor
