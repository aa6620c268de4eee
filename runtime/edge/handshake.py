"""The handshake era (2025-11-25 and earlier): sessions by `initialize`, standing streams, resumption."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from time import perf_counter

from mcp_types import INVALID_REQUEST
from mcp_types.version import is_version_at_least

from ...actors import Access, Elsewhere, Envelope, Registry
from ...actors.session import SESSION, SessionSeed, TenantContext
from ...actors.session.announcement import Announce, announced
from ...actors.session.errors import DuplicateRequest, LimitExceeded
from ...actors.session.exchange import Exchange
from ...actors.session.messages import Call, Notice
from ...actors.session.protocol_state import PROTOCOL_READS
from ...actors.session.relay import Relay
from ...actors.session.servers import Servers
from ...actors.session.wire import NOT_FOUND, Refusal
from ...stores import Address, UnderstudyError
from ..audit.audit import AuditTrail
from ..audit.auditing import AuditedCall
from ..limits.permits import Permits
from ..streams.resumption import Resumption
from ..streams.standing import Standing
from ..streams.streams import StreamTable
from ..telemetry.tenant_tally import TALLY, ObserveCall
from ..wire.http import answer
from ..wire.inbound import Inbound
from ..wire.jsonrpc import Answer, Notification, Request, read_message
from ..wire.refusals import Refused, refuse
from ..wire.routing import NoRoom, refused
from .posts import Posts
from .repeats import FIRST_TRY, Repeats
from .sessions import Sessions
from .sse import keep_alive_of, priming_event, write_stream
from .standing_leg import RESUMABLE_SINCE, StandingLeg

__all__ = ["HandshakeLeg"]

logger = logging.getLogger(__name__)


class HandshakeLeg:
    """Serves POST, GET and DELETE of the handshake era for all sessions of this node."""

    def __init__(
        self,
        *,
        registry: Registry,
        servers: Servers,
        streams: StreamTable,
        standing: Standing,
        resumption: Resumption,
        posts: Posts,
        observe_call: ObserveCall,
        session_ttl: float,
        check_timeout: float = 30.0,
        announce: Announce | None = None,
        relay: Relay | None = None,
        audit: AuditTrail | None = None,
        permits: Permits | None = None,
    ) -> None:
        """`session_ttl` and `check_timeout` in seconds. `observe_call`: told of each request.

        `announce` is awaited for each session that is opened, before the client gets the result of its `initialize`.
        """
        self._registry = registry
        self._servers = servers
        self._sessions = Sessions(registry, check_timeout)
        self._streams = streams
        self._posts = posts
        self._observe_call = observe_call
        self._announce = announce
        self._audit = audit
        self._permits = permits
        self._standing_leg = StandingLeg(
            sessions=self._sessions,
            streams=streams,
            standing=standing,
            resumption=resumption,
            posts=posts,
            session_of=self._session_of,
            session_ttl=session_ttl,
            relay=relay,
            permits=permits,
        )
        self._repeats = Repeats(self._sessions, streams, self._standing_leg)

    async def __call__(self, inbound: Inbound) -> None:
        """A `Leg`."""
        method = inbound.scope["method"]
        if method == "POST":
            await self._post(inbound)
        elif method == "GET":
            if inbound.purpose == FIRST_TRY:
                await self._repeats.serve(inbound)
            else:
                await self._standing_leg(inbound)
        elif method == "DELETE":
            await self._delete(inbound)
        else:
            allow = (b"allow", b"GET, POST, DELETE")
            await refuse(inbound.send, Refusal(INVALID_REQUEST, f"Method {method} not allowed", status=405), allow)

    async def _post(self, inbound: Inbound) -> None:
        message = read_message(inbound.body)
        opening = type(message) is Request and message.method == "initialize"
        session_id = inbound.headers.get(b"mcp-session-id")
        if session_id is None:
            if not opening:
                raise Refused(Refusal(INVALID_REQUEST, "Missing session ID", status=400))
            address = Address.new(SESSION)
        else:
            known = self._sessions.address(session_id)
            if known is None:
                raise Refused(NOT_FOUND, message.id if type(message) is Request else None)
            address = known
            if type(message) is Request and opening:
                await self._open_again(address, message, inbound.tenant)
                return
        if type(message) is Request:
            await self._request(address, message, opening, inbound)
        elif type(message) is Notification:
            await self._notification(address, message, inbound)
        else:
            assert isinstance(message, Answer)
            await self._answer(address, message, inbound)

    async def _open_again(self, address: Address, message: Request, tenant: TenantContext) -> None:
        try:
            await self._sessions.authorize(address, tenant)
        except UnderstudyError as error:
            raise refused(error, address, message.id) from error
        raise Refused(Refusal(INVALID_REQUEST, "This session is initialized already", status=400), message.id)

    # A request

    async def _request(self, address: Address, message: Request, opening: bool, inbound: Inbound) -> None:
        if inbound.again and await self._repeats.answer(address, message, inbound):
            return
        version = _asked_revision(message) if opening else inbound.revision
        resumable = is_version_at_least(version, RESUMABLE_SINCE)
        tenant = inbound.tenant
        exchange = Exchange(message.id, message.method)
        request = inbound.shown()
        call = Call(message.id, message.method, message.params, tenant, exchange, request, None, resumable)
        tally = call.audit = TALLY.get()
        if self._audit is not None:
            call.audit = AuditedCall(self._audit, address, tally, forwarded=inbound.remote)
        try:
            if self._servers.filtered and not self._servers.surfaces.enter(call):
                await self._servers.surfaces.look_up(call)
            if self._permits is not None:
                entering = self._permits.enter(call, None if opening else address)
                if entering is not None:
                    await entering
            envelope = call.envelope = Envelope(call, Access.EXCLUSIVE, call, None, copy_context())
            # The task that the link has made for it has just begun so too.
            envelope.at_once = inbound.remote
            if opening:
                self._registry.open(address, SessionSeed("handshake", tenant), tenant.tenant, envelope)
            else:
                actor = await self._sessions.live(address, tenant)
                if actor is not None:
                    envelope.access = actor.accept(call)
                elif message.method in PROTOCOL_READS:
                    envelope.access = Access.SHARED
                self._registry.deliver(address, envelope)
        except (UnderstudyError, Elsewhere) as error:
            if inbound.again and isinstance(error, DuplicateRequest | LimitExceeded):
                # Its first try was on the way into the session too, and has come before it.
                call.let_go()
                if await self._repeats.answer(address, message, inbound):
                    return
            call.fail(error)
        except BaseException:
            # As when the HTTP server cancels the request while the session wakes: nobody else knows of the call.
            call.let_go()
            raise
        await self._posts.first(exchange)
        if exchange.id:
            # A repeat has made it a stream, and reads that: nobody waits for this answer.
            exchange.senders -= 1
            self._observe_call(perf_counter() - inbound.started, tally)
            await answer(inbound.send, 202, headers=())
            return
        if exchange.elsewhere is not None:
            raise Elsewhere(exchange.elsewhere)
        opened = ((b"mcp-session-id", address.id.encode()),) if opening else ()
        if (
            exchange.finished
            and exchange.quiet
            and (exchange.refusal is not None or not self._posts.prefers_stream(inbound.headers))
        ):
            if exchange.refusal is not None:
                opened = ()
                if exchange.no_room is not None:
                    raise NoRoom(None if opening else address, exchange.no_room, exchange.refusal, message.id)
            elif opening:
                await announced(self._announce, address)
            self._observe_call(perf_counter() - inbound.started, tally)
            await self._posts.answer(inbound.send, exchange, *opened)
            return
        self._streams.name(address, exchange, revision=version, primed=resumable)
        try:
            await write_stream(
                exchange,
                inbound.receive,
                inbound.send,
                numbered=True,
                keep_alive=keep_alive_of(inbound),
                prelude=priming_event(exchange, 0) if resumable else b"",
                headers=opened,
                before_outcome=self._announcing(address, exchange) if opening else None,
            )
        finally:
            exchange.senders -= 1
            self._streams.left(address, exchange)
            if exchange.elsewhere is None:
                self._observe_call(perf_counter() - inbound.started, tally)

    def _announcing(self, address: Address, exchange: Exchange) -> Callable[[], Awaitable[None]]:
        async def announce() -> None:
            if exchange.refusal is None:
                await announced(self._announce, address)

        return announce

    # A notification, an answer

    async def _notification(self, address: Address, message: Notification, inbound: Inbound) -> None:
        tenant = inbound.tenant
        try:
            actor = await self._sessions.live(address, tenant)
            if actor is not None:
                self._sessions.admit(actor, address, tenant)
                if message.method == "notifications/cancelled":
                    actor.cancel(message.params)
            if actor is None or not actor.ignores(message.method, message.params):
                notice = Notice(message.method, message.params, tenant, inbound.shown())
                self._registry.deliver(address, Envelope(notice, Access.SHARED, None, None, copy_context()))
        except UnderstudyError as error:
            raise refused(error, address) from error
        await answer(inbound.send, 202, headers=())

    async def _answer(self, address: Address, message: Answer, inbound: Inbound) -> None:
        tenant = inbound.tenant
        try:
            actor = await self._sessions.live(address, tenant)
            if actor is not None:
                self._sessions.admit(actor, address, tenant)
                actor.answer(message.id, message.result, message.error)
        except UnderstudyError as error:
            raise refused(error, address) from error
        await answer(inbound.send, 202, headers=())

    # The end

    async def _delete(self, inbound: Inbound) -> None:
        address = await self._session_of(inbound)
        try:
            await self._registry.end(address)
        except UnderstudyError as error:
            raise refused(error, address) from error
        self._streams.end(address)
        await answer(inbound.send, 200, headers=())

    async def _session_of(self, inbound: Inbound) -> Address:
        """The session that the request names.

        Raises:
            Refused: It names none, or none that answers to its sender.
        """
        session_id = inbound.headers.get(b"mcp-session-id")
        if session_id is None:
            raise Refused(Refusal(INVALID_REQUEST, "Missing session ID", status=400))
        address = self._sessions.address(session_id)
        if address is None:
            raise Refused(NOT_FOUND)
        try:
            await self._sessions.authorize(address, inbound.tenant)
        except UnderstudyError as error:
            raise refused(error, address) from error
        return address


def _asked_revision(message: Request) -> str:
    """What `initialize` asks for: its headers say nothing of it yet."""
    version = (message.params or {}).get("protocolVersion")
    return version if isinstance(version, str) else "2025-03-26"
