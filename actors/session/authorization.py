"""Whether a session answers to a principal, asked before anything is done in its name."""

from __future__ import annotations

import logging

from ...stores import Address
from ..actor import Access
from ..errors import ActorUnavailable, TurnCancelled
from ..registry import Registry
from .errors import ForeignSession
from .messages import Authorize
from .session_actor import SessionActor
from .snapshot import SessionSnapshot
from .tenant import ANONYMOUS, TenantContext

__all__ = ["authorize", "screen"]

logger = logging.getLogger(__name__)


async def screen(registry: Registry, address: Address, tenant: TenantContext) -> None:
    """Return if the session may be there for this principal; whether it is, is found out by whoever asks it.

    no-wrong-tenant: a stranger does not even wake it, which would claim its record, nor count as its use.

    Raises:
        ForeignSession: It answers to another principal.
        ActorUnavailable: The store does not answer.
    """
    actor = registry.live(address)
    if isinstance(actor, SessionActor):
        actor.admit(tenant)
        return
    if tenant == ANONYMOUS:
        # Where everybody is, there are no strangers, and nobody need pay for the look.
        return
    try:
        record = await registry.peek(address)
    except ActorUnavailable:
        raise
    except Exception as error:
        # Whoever wakes it meets the same, and says what it means.
        logger.debug("%s cannot be looked at: %r", address, error)
        return
    if record is None:
        return
    if record.tenant != tenant.tenant or SessionSnapshot.principal_of(record.snapshot) not in (None, tenant.principal):
        raise ForeignSession(address)


async def authorize(registry: Registry, address: Address, question: Authorize, *, timeout: float) -> None:
    """Return if there is such a session for this principal; it is woken for the question if need be.

    Raises:
        UnderstudyError: There is none, or it cannot be reached now, or not within `timeout` seconds.
    """
    await screen(registry, address, question.tenant)
    try:
        await registry.ask(address, question, access=Access.SHARED, timeout=timeout)
    except TurnCancelled:
        # The session was ended, or the node stops, before the question's turn: asked again, it says which.
        await registry.ask(address, question, access=Access.SHARED, timeout=timeout)
