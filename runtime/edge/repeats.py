"""`Repeats`: a call whose edge asks again is answered by its first try, where that is in flight still."""

from __future__ import annotations

from typing import Final

from mcp_types.version import is_version_at_least

from ...actors.session import TenantContext
from ...actors.session.exchange import Exchange
from ...actors.session.wire import NOT_FOUND, OUTCOME_UNKNOWN
from ...stores import Address, UnderstudyError
from ..streams.resumption import unknown_event
from ..streams.streams import StreamTable
from ..wire.inbound import Inbound
from ..wire.jsonrpc import Request, read_message
from ..wire.refusals import Refused
from ..wire.routing import refused
from .sessions import Sessions
from .standing_leg import RESUMABLE_SINCE, StandingLeg

__all__ = ["FIRST_TRY", "NO_EVENT", "Repeats"]

FIRST_TRY: Final = "first try"
"""The purpose of a GET that asks for the stream of a call which may not be repeated. The call is its body."""
NO_EVENT: Final = "first-try-0"
"""The last event that such a GET names. No stream has that name, so that an owner of a version which does not know the
purpose refuses it; and as a GET it runs nothing there either."""


class Repeats:
    """The owner's end: the edge has lost its path to this node, which may be well, and the client knows nothing of it.

    The id of a call is its client's to choose, so a repeat is only what asks for the same under the same id.
    """

    def __init__(self, sessions: Sessions, streams: StreamTable, standing_leg: StandingLeg) -> None:
        self._sessions = sessions
        self._streams = streams
        self._standing_leg = standing_leg

    async def answer(self, address: Address, message: Request, inbound: Inbound) -> bool:
        """Answer `inbound` with the stream of the first try of `message`, from its beginning; False if none is in
        flight here, and then nothing was sent. Runs nothing.

        Raises:
            Elsewhere: The session is to be asked at another node, where the first try goes on if it has not run.
            Refused: The session cannot be reached, or what the first try has said is not kept.
        """
        exchange = await self._first_try(address, message, inbound.tenant)
        if exchange is None:
            return False
        try:
            await self._show(address, exchange, inbound)
        except Refused as lost:
            raise Refused(OUTCOME_UNKNOWN, message.id) from lost
        return True

    async def serve(self, inbound: Inbound) -> None:
        """A `Leg`, for a `FIRST_TRY`. never-run-twice: nothing runs, be the call known here or not."""
        message = read_message(inbound.body)
        address = self._sessions.address(inbound.headers.get(b"mcp-session-id", b""))
        if address is None:
            raise Refused(NOT_FOUND)
        exchange = await self._first_try(address, message, inbound.tenant) if type(message) is Request else None
        if exchange is None:
            raise unknown_event(NO_EVENT)
        await self._show(address, exchange, inbound)

    async def _first_try(self, address: Address, message: Request, tenant: TenantContext) -> Exchange | None:
        try:
            actor = await self._sessions.live(address, tenant)
            if actor is None:
                return None
            self._sessions.admit(actor, address, tenant)
        except UnderstudyError as error:
            raise refused(error, address, message.id) from error
        first = actor.in_flight(message.id)
        if first is None or (first.id, first.method, first.params) != (message.id, message.method, message.params):
            return None
        return first.exchange

    async def _show(self, address: Address, exchange: Exchange, inbound: Inbound) -> None:
        version = inbound.revision
        primed = is_version_at_least(version, RESUMABLE_SINCE)
        if not exchange.id:
            # Its own connection waits for an answer that is quick, and nobody waits for that one any more.
            self._streams.name(address, exchange, revision=version, primed=primed)
        exchange.senders += 1
        try:
            await self._standing_leg.resume(address, f"{exchange.id}-0", 0, primed, inbound)
        finally:
            exchange.senders -= 1
