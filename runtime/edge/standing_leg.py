"""`StandingLeg`: GET in the handshake era, a session's standalone stream or one that is resumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from mcp_types import INVALID_REQUEST
from mcp_types.version import is_version_at_least

from ...actors import Elsewhere
from ...actors.session import SessionActor, TenantContext
from ...actors.session.errors import LimitExceeded
from ...actors.session.exchange import Exchange
from ...actors.session.relay import Relay, reread_messages
from ...actors.session.standalone import Listened
from ...actors.session.wire import SERVER_BUSY, Refusal
from ...stores import Address, UnderstudyError
from ..limits.permits import Permits
from ..streams.resumption import Resumption, event_position, unknown_event
from ..streams.standing import Standing, tag_of
from ..streams.streams import STANDALONE, StreamTable
from ..wire.inbound import Inbound
from ..wire.refusals import Refused
from ..wire.routing import refused
from .posts import Posts
from .replay import Replay, Replays
from .sessions import Sessions
from .sse import RETRY_MS, keep_alive_of, priming_event, write_stream

__all__ = ["RESUMABLE_SINCE", "StandingLeg"]

RESUMABLE_SINCE: Final = "2025-11-25"
"""From this revision on clients are primed: the first event of a stream only carries its id."""


class StandingLeg:
    """What a client reads that posts nothing."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        streams: StreamTable,
        standing: Standing,
        resumption: Resumption,
        posts: Posts,
        session_of: Callable[[Inbound], Awaitable[Address]],
        session_ttl: float,
        relay: Relay | None,
        permits: Permits | None = None,
    ) -> None:
        """`session_of`: who the request is from, and for. `session_ttl` in seconds."""
        self._sessions = sessions
        self._streams = streams
        self._standing = standing
        self._resumption = resumption
        self._posts = posts
        self._session_of = session_of
        self._session_ttl = session_ttl
        self._relay = relay
        self._permits = permits
        self._replays = Replays()

    async def __call__(self, inbound: Inbound) -> None:
        """A `Leg`."""
        headers = inbound.headers
        if not self._posts.accepts_stream(headers):
            text = "Not Acceptable: the client must accept text/event-stream"
            raise Refused(Refusal(INVALID_REQUEST, text, status=406))
        last_event = headers.get(b"last-event-id")
        try:
            address = await self._session_of(inbound)
        except Elsewhere as elsewhere:
            address = elsewhere.address
            if last_event is None or not self._is_written_here(address, last_event.decode("latin-1"), inbound):
                raise
        version = inbound.revision
        primed = is_version_at_least(version, RESUMABLE_SINCE)
        if last_event is None:
            async with self._counted(address, STANDALONE, inbound):
                await self._stand(address, None, primed, inbound)
            return
        event_id = last_event.decode("latin-1")
        name, number = event_position(event_id) or (STANDALONE, 0)
        if name == STANDALONE:
            raise unknown_event(event_id)
        tag, _, life = name.partition(".")
        if tag == tag_of(address):
            async with self._counted(address, STANDALONE, inbound, resumed=True):
                await self._stand(address, (life, number), primed, inbound)
        else:
            async with self._counted(address, name, inbound, resumed=True):
                await self.resume(address, event_id, number, primed, inbound)

    @asynccontextmanager
    async def _counted(
        self, address: Address, name: str, inbound: Inbound, *, resumed: bool = False
    ) -> AsyncGenerator[None]:
        """While the stream counts as open.

        Raises:
            Refused: There are as many as there may be.
        """
        if self._permits is None:
            yield
            return
        try:
            async with self._permits.stream(inbound.tenant, address, name, resumed=resumed):
                yield
        except LimitExceeded as error:
            raise refused(error, address) from error

    def _is_written_here(self, address: Address, event_id: str, inbound: Inbound) -> bool:
        """Whether a turn that keeps its session from moving on writes the stream, or has just written it.

        It must be had here and now: what that turn waits for may be the answer to a question that stands in it.
        """
        position = event_position(event_id)
        if position is None or self._streams.request(address, position[0]) is None:
            return False
        try:
            return self._sessions.admit_to_streams(address, inbound.tenant)
        except UnderstudyError as error:
            raise refused(error, address) from error

    async def resume(self, address: Address, event_id: str, number: int, primed: bool, inbound: Inbound) -> None:
        """Write what follows `event_id`, number `number` of its stream, to its end.

        Raises:
            Refused: As `Resumption.resume`.
        """
        async with self._resumption.resume(address, event_id) as (exchange, after, earlier):
            prelude = priming_event(exchange, number) if primed else b""
            # What only this reader has of a stream that is not in memory.
            own = 0 if exchange.household is not None else exchange.size
            with self._replays.of(exchange.id, earlier, beside=own) as replay:
                await _write(inbound, exchange, after, prelude, replay)

    async def _live(self, address: Address, inbound: Inbound) -> SessionActor:
        try:
            actor = await self._sessions.live(address, inbound.tenant)
        except UnderstudyError as error:
            raise refused(error, address) from error
        if actor is None:
            text = "The session is on its way out of memory; try again in a moment"
            raise Refused(Refusal(SERVER_BUSY, text, status=503, retry_after=0.1))
        return actor

    async def _unheard(self, tenant: TenantContext, subscriptions: Sequence[str]) -> frozenset[str]:
        return frozenset() if self._relay is None else await self._relay.servers.unheard(tenant, subscriptions)

    async def _stand(self, address: Address, resume: tuple[str, int] | None, primed: bool, inbound: Inbound) -> None:
        """What belongs to no request."""
        while True:
            actor = await self._live(address, inbound)
            # It may wait, and what follows must not.
            unheard = await self._unheard(inbound.tenant, actor.snap.subscriptions)
            fresh = actor.listened is Listened.NEVER
            actor.listened = Listened.PERHAPS
            opened = await self._standing.open(address, resume, fresh=fresh)
            if self._sessions.present(address) is actor:
                break
            # It has left while the log was read. Where to, and whether it was told of this stream, nobody knows.
            self._streams.close_standing(address)
        exchange = opened.exchange
        # A connection that only listens is no use of the session: it ends when the session may have, and a client
        # that comes back is told whether it has.
        timer = asyncio.get_running_loop().call_later(self._session_ttl, exchange.cut)
        try:
            # Without an id what has not been read is what the client lacks, as far as anybody knows.
            after = max(exchange.read, exchange.oldest - 1) if opened.after is None else opened.after
            continued = not (fresh and opened.complete)
            told = self._relay is not None and self._relay.opened(
                address, actor.snap, continued=continued, unheard=unheard
            )
            if not opened.complete and not told:
                # Part of the stream like any other event: who loses the connection before it has them comes back.
                for message in reread_messages(actor.snap.subscriptions):
                    exchange.send(message)
            number = opened.earlier[0][0] - 1 if opened.earlier else after
            prelude = priming_event(exchange, number, retry=RETRY_MS) if primed else b""
            with self._replays.of(exchange.id, opened.earlier) as replay:
                await _write(inbound, exchange, after, prelude, replay)
        finally:
            timer.cancel()
            self._streams.left(address, exchange)


async def _write(inbound: Inbound, exchange: Exchange, after: int, prelude: bytes, replay: Replay) -> None:
    await write_stream(
        exchange,
        inbound.receive,
        inbound.send,
        after=after,
        numbered=True,
        keep_alive=keep_alive_of(inbound),
        prelude=prelude,
        replay=replay,
    )
