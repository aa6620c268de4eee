"""The handshake era (2025-11-25 and earlier): sessions by `initialize`, standing streams, resumption."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Final

from mcp_types import INVALID_REQUEST
from mcp_types.version import is_version_at_least
from starlette.requests import Request as HTTPRequest

from ..actors import Access, Envelope, Registry
from ..actors.session import SESSION, SessionSeed, TenantContext
from ..actors.session.exchange import Exchange
from ..actors.session.messages import Call, Notice
from ..actors.session.protocol_state import PROTOCOL_READS
from ..actors.session.wire import NOT_FOUND, Refusal, refusal_of
from ..stores import Address, UnderstudyError
from .http import Headers, Receive, Scope, Send, answer
from .jsonrpc import Answer, Notification, Request
from .posts import Posts
from .refusals import refuse
from .sessions import Sessions
from .sse import priming_event, retry_hint, write_stream
from .streams import StreamTable, UnknownEvent

__all__ = ["HandshakeLeg"]

logger = logging.getLogger(__name__)

_RESUMABLE_SINCE: Final = "2025-11-25"


class HandshakeLeg:
    """Serves POST, GET and DELETE of the handshake era for all sessions of this node."""

    def __init__(
        self,
        *,
        registry: Registry,
        streams: StreamTable,
        posts: Posts,
        observe_call: Callable[[float], None],
        session_ttl: float,
        check_timeout: float = 30.0,
    ) -> None:
        """`session_ttl` and `check_timeout` in seconds. `observe_call` is told how long each request took."""
        self._registry = registry
        self._sessions = Sessions(registry, check_timeout)
        self._streams = streams
        self._posts = posts
        self._observe_call = observe_call
        self._session_ttl = session_ttl

    async def __call__(
        self, scope: Scope, headers: Headers, tenant: TenantContext, receive: Receive, send: Send
    ) -> None:
        method = scope["method"]
        if method == "POST":
            await self._post(scope, headers, tenant, receive, send)
        elif method == "GET":
            await self._get(headers, tenant, receive, send)
        elif method == "DELETE":
            await self._delete(headers, tenant, send)
        else:
            allow = (b"allow", b"GET, POST, DELETE")
            await refuse(send, Refusal(INVALID_REQUEST, f"Method {method} not allowed", status=405), allow)

    async def _post(self, scope: Scope, headers: Headers, tenant: TenantContext, receive: Receive, send: Send) -> None:
        message = await self._posts.read(headers, receive)
        opening = type(message) is Request and message.method == "initialize"
        session_id = headers.get(b"mcp-session-id")
        if session_id is None:
            if not opening:
                await refuse(send, Refusal(INVALID_REQUEST, "Missing session ID", status=400))
                return
            address = Address.new(SESSION)
        else:
            known = self._sessions.address(session_id)
            if known is None:
                await refuse(send, NOT_FOUND, request_id=message.id if type(message) is Request else None)
                return
            address = known
            if type(message) is Request and opening:
                await self._open_again(address, message, tenant, send)
                return
        if type(message) is Request:
            await self._request(address, message, opening, scope, headers, tenant, receive, send)
        elif type(message) is Notification:
            await self._notification(address, message, scope, tenant, send)
        else:
            assert isinstance(message, Answer)
            await self._answer(address, message, tenant, send)

    async def _open_again(self, address: Address, message: Request, tenant: TenantContext, send: Send) -> None:
        try:
            await self._sessions.authorize(address, tenant)
        except UnderstudyError as error:
            refusal = refusal_of(error, modern=False)
        else:
            refusal = Refusal(INVALID_REQUEST, "This session is initialized already", status=400)
        await refuse(send, refusal, request_id=message.id)

    # A request

    async def _request(
        self,
        address: Address,
        message: Request,
        opening: bool,
        scope: Scope,
        headers: Headers,
        tenant: TenantContext,
        receive: Receive,
        send: Send,
    ) -> None:
        started = time.perf_counter()
        version = _version(message, headers, opening)
        resumable = is_version_at_least(version, _RESUMABLE_SINCE)
        exchange = Exchange(message.id, message.method)
        call = Call(message.id, message.method, message.params, tenant, exchange, HTTPRequest(scope), None, resumable)
        envelope = Envelope(call, Access.EXCLUSIVE, call, None, copy_context())
        call.envelope = envelope
        try:
            if opening:
                self._registry.open(address, SessionSeed("handshake", tenant), tenant.tenant, envelope)
            else:
                actor = await self._sessions.live(address, tenant)
                if actor is not None:
                    envelope.access = actor.accept(call)
                elif message.method in PROTOCOL_READS:
                    envelope.access = Access.SHARED
                self._registry.deliver(address, envelope)
        except UnderstudyError as error:
            call.fail(error)
        await self._posts.first(exchange)
        opened = ((b"mcp-session-id", address.id.encode()),) if opening else ()
        if exchange.finished and exchange.quiet:
            self._observe_call(time.perf_counter() - started)
            if exchange.refusal is not None:
                opened = ()
            await self._posts.answer(send, exchange, *opened)
            return
        self._streams.name(address, exchange)
        try:
            prelude = priming_event(exchange, 0) if resumable else b""
            await write_stream(exchange, receive, send, numbered=True, prelude=prelude, headers=opened)
        finally:
            self._streams.left(address, exchange)
            self._observe_call(time.perf_counter() - started)

    # A notification, an answer

    async def _notification(
        self, address: Address, message: Notification, scope: Scope, tenant: TenantContext, send: Send
    ) -> None:
        try:
            actor = await self._sessions.live(address, tenant)
            if actor is not None:
                self._sessions.admit(actor, address, tenant)
                if message.method == "notifications/cancelled":
                    actor.cancel(message.params)
            if actor is None or not actor.ignores(message.method, message.params):
                notice = Notice(message.method, message.params, tenant, HTTPRequest(scope))
                self._registry.deliver(address, Envelope(notice, Access.SHARED, None, None, copy_context()))
        except UnderstudyError as error:
            await refuse(send, refusal_of(error, modern=False))
            return
        await answer(send, 202, headers=())

    async def _answer(self, address: Address, message: Answer, tenant: TenantContext, send: Send) -> None:
        try:
            actor = await self._sessions.live(address, tenant)
            if actor is not None:
                self._sessions.admit(actor, address, tenant)
                actor.answer(message.id, message.result, message.error)
        except UnderstudyError as error:
            await refuse(send, refusal_of(error, modern=False))
            return
        await answer(send, 202, headers=())

    # The standalone stream, resumption, the end

    async def _get(self, headers: Headers, tenant: TenantContext, receive: Receive, send: Send) -> None:
        if not self._posts.accepts_stream(headers):
            text = "Not Acceptable: the client must accept text/event-stream"
            await refuse(send, Refusal(INVALID_REQUEST, text, status=406))
            return
        address = await self._session_of(headers, tenant, send)
        if address is None:
            return
        last_event = headers.get(b"last-event-id")
        version = headers.get(b"mcp-protocol-version", b"2025-03-26").decode("latin-1")
        primed = is_version_at_least(version, _RESUMABLE_SINCE)
        if last_event is None:
            await self._standalone(address, primed, receive, send)
            return
        try:
            exchange, after = self._streams.find(address, last_event.decode("latin-1"))
        except UnknownEvent as error:
            await refuse(send, Refusal(INVALID_REQUEST, str(error), status=400))
            return
        prelude = priming_event(exchange, after) if primed else b""
        try:
            await write_stream(exchange, receive, send, after=after, numbered=True, prelude=prelude)
        finally:
            self._streams.left(address, exchange)

    async def _standalone(self, address: Address, primed: bool, receive: Receive, send: Send) -> None:
        """What belongs to no request. Its events have no ids: an id of a node's earlier life would keep a client, which
        never lets go of it, from coming back. What nobody has read yet waits for the next reader instead.
        """
        exchange = self._streams.open_standalone(address)
        prelude = retry_hint() if primed else b""
        # A connection that only listens is no use of the session: it ends when the session may have, and a client
        # that comes back is told whether it has.
        timer = asyncio.get_running_loop().call_later(self._session_ttl, exchange.cut)
        try:
            # What had to make room while nobody read is gone: without event ids there is nobody to tell.
            after = max(exchange.read, exchange.oldest - 1)
            await write_stream(exchange, receive, send, after=after, numbered=False, prelude=prelude)
        finally:
            timer.cancel()
            self._streams.left(address, exchange)

    async def _delete(self, headers: Headers, tenant: TenantContext, send: Send) -> None:
        address = await self._session_of(headers, tenant, send)
        if address is None:
            return
        try:
            await self._registry.end(address)
        except UnderstudyError as error:
            await refuse(send, refusal_of(error, modern=False))
            return
        self._streams.end(address)
        await answer(send, 200, headers=())

    async def _session_of(self, headers: Headers, tenant: TenantContext, send: Send) -> Address | None:
        """The session that the request names, if it answers to its sender; otherwise the request is answered here."""
        session_id = headers.get(b"mcp-session-id")
        if session_id is None:
            await refuse(send, Refusal(INVALID_REQUEST, "Missing session ID", status=400))
            return None
        address = self._sessions.address(session_id)
        if address is None:
            await refuse(send, NOT_FOUND)
            return None
        try:
            await self._sessions.authorize(address, tenant)
        except UnderstudyError as error:
            await refuse(send, refusal_of(error, modern=False))
            return None
        return address


def _version(message: Request, headers: Headers, opening: bool) -> str:
    """The revision that the client speaks: by its header, or in `initialize` by the params."""
    if opening:
        version = (message.params or {}).get("protocolVersion")
        return version if isinstance(version, str) else "2025-03-26"
    return headers.get(b"mcp-protocol-version", b"2025-03-26").decode("latin-1")
