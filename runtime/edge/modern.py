"""The modern era (2026-07-28): each POST stands alone; state is named by a handle among the arguments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Mapping
from contextvars import copy_context
from time import perf_counter
from typing import Any, Final, cast

from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PARAM_HEADER_PREFIX,
    X_MCP_HEADER_KEY,
    InboundLadderRejection,
    InboundModernRoute,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
    validate_mcp_param_headers,
)
from mcp_types import HEADER_MISMATCH, INVALID_REQUEST
from starlette.datastructures import Headers as StarletteHeaders

from ...actors import Access, ActorError, Elsewhere, Envelope, Registry
from ...actors.session import SessionActor
from ...actors.session.authorization import screen
from ...actors.session.errors import DuplicateRequest, LimitExceeded
from ...actors.session.exchange import Exchange
from ...actors.session.handle_calls import HandleCalls
from ...actors.session.handles import OPEN_SESSION
from ...actors.session.hosting import HostedServer
from ...actors.session.messages import Call
from ...actors.session.servers import Servers
from ...actors.session.wire import SERVER_BUSY, Refusal
from ...actors.task_owner import TaskOwner
from ..audit.audit import AuditTrail
from ..audit.auditing import AuditedCall
from ..fairness.shares import Full, Shares
from ..limits.permits import Permits
from ..telemetry.tenant_tally import TALLY, ObserveCall
from ..wire.http import Headers, Receive, Send, answer, disconnected
from ..wire.inbound import Inbound
from ..wire.jsonrpc import Answer, Notification, Request, read_message
from ..wire.refusals import Refused, refuse
from ..wire.routing import NoRoom
from .posts import Posts
from .sse import keep_alive_of, write_stream

__all__ = ["ModernLeg"]

logger = logging.getLogger(__name__)

JSON_PATIENCE: Final = 1.0
"""Seconds that a silent call may take and still go out as plain JSON, with its own HTTP status. No longer, because the
SDK's client outlives a node that dies in mid-stream, but not one that dies before it has answered at all."""
_LISTEN: Final = "subscriptions/listen"
_PARAM_PREFIX: Final = MCP_PARAM_HEADER_PREFIX.lower().encode()
_UNREADABLE: Final = InboundLadderRejection(
    # The SDK's decoder raises where an encoded value holds bytes beyond ASCII.
    code=HEADER_MISMATCH,
    message="an Mcp-Name or Mcp-Param header is neither plain text nor base64",
)


class ModernLeg:
    """Serves the POSTs of the modern era."""

    def __init__(
        self,
        *,
        registry: Registry,
        servers: Servers,
        tasks: TaskOwner,
        handles: HandleCalls,
        posts: Posts,
        max_calls: int,
        max_listening: int,
        fair: bool = False,
        observe_call: ObserveCall,
        audit: AuditTrail | None = None,
        permits: Permits | None = None,
    ) -> None:
        """`max_calls`: how many calls without a session may run at once; `max_listening`: how many of
        `subscriptions/listen` beside them; `fair`: whether tenants share them (`Shares`). `tasks`: the group that owns
        them.
        """
        self._registry = registry
        self._servers = servers
        self._tasks = tasks
        self._handles = handles
        self._posts = posts
        self._max_calls = max_calls
        self._max_listening = max_listening
        self._call_shares = Shares(max_calls, fair=fair)
        self._listening_shares = Shares(max_listening, fair=fair)
        self._observe_call = observe_call
        self._audit = audit
        self._permits = permits
        self._annotated: dict[int, tuple[Any, bool]] = {}
        self.running: set[Call] = set()
        """Calls without a session, but for those that only listen."""
        self.listening: set[Call] = set()
        """They last, and must not take the place of others."""

    async def __call__(self, inbound: Inbound) -> None:
        """A `Leg`."""
        method = inbound.scope["method"]
        if method != "POST":
            refusal = Refusal(INVALID_REQUEST, f"Method {method} not allowed", status=405)
            await refuse(inbound.send, refusal, (b"allow", b"POST"))
            return
        message = read_message(inbound.body)
        if type(message) is Notification:
            await self._notification(inbound.headers, inbound.send)
        elif type(message) is Answer:
            text = "Invalid Request: this era has no requests of the server's to respond to"
            raise Refused(Refusal(INVALID_REQUEST, text, status=400))
        else:
            assert isinstance(message, Request)
            await self._request(message, inbound)

    async def _notification(self, headers: Headers, send: Send) -> None:
        # This era defines none; one is acknowledged and dropped, as the SDK does, if its version is served.
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        rejection = unsupported_protocol_version_rejection(version)
        if rejection is not None:
            raise Refused(_refusal(rejection))
        await answer(send, 202, headers=())

    async def _request(self, message: Request, inbound: Inbound) -> None:
        raw_headers = StarletteHeaders(raw=inbound.scope["headers"])
        route = self._classify(message, raw_headers)
        if isinstance(route, InboundLadderRejection):
            raise Refused(_refusal(route), message.id)
        tenant = inbound.tenant
        exchange = Exchange(message.id, message.method, modern=True)
        call = Call(message.id, message.method, message.params, tenant, exchange, inbound.shown(), route)
        tally = call.audit = TALLY.get()
        if self._audit is not None:
            call.audit = AuditedCall(self._audit, None, tally, forwarded=inbound.remote)
        try:
            hosted = await self._servers.for_surface(tenant)
            if self._servers.filtered and not self._servers.surfaces.enter(call):
                await self._servers.surfaces.look_up(call)
        except Exception as error:
            call.fail(error)
        else:
            mismatch = self._param_mismatch(message, inbound.headers, raw_headers, hosted)
            if mismatch is not None:
                raise Refused(_refusal(mismatch), message.id)
            if await self._entered(call):
                await self._start(call, hosted, remote=inbound.remote)
        await self._respond(call, inbound)
        self._observe_call(perf_counter() - inbound.started, tally)

    async def _entered(self, call: Call) -> bool:
        """Whether `call` may run; otherwise it has its outcome.

        Raises:
            Refused: The node runs as many of its sort as it may.
        """
        if self._permits is not None:
            try:
                entering = self._permits.enter(call, self._handles.address(call))
                if entering is not None:
                    await entering
            except LimitExceeded as error:
                call.fail(error)
                return False
        try:
            self._check_room(call)
        except Refused:
            call.let_go()
            raise
        return True

    def _check_room(self, call: Call) -> None:
        """
        Raises:
            Refused: The node runs as many of its sort as it may, of all tenants (503) or of this one (429).
        """
        listens = call.method == _LISTEN
        full = (self._listening_shares if listens else self._call_shares).full(call.tenant.tenant)
        if full is None:
            return
        what = "clients listen" if listens else "calls are running"
        if full is Full.NODE:
            limit = self._max_listening if listens else self._max_calls
            refusal = Refusal(SERVER_BUSY, f"{limit} {what}, the limit of this node", status=503, retry_after=1.0)
        else:
            text = f"Of this tenant so many {what} that others would find no place at this node"
            refusal = Refusal(SERVER_BUSY, text, status=429, retry_after=1.0)
        raise Refused(refusal, call.id)

    def _classify(self, message: Request, headers: StarletteHeaders) -> InboundModernRoute | InboundLadderRejection:
        duplicated = find_duplicated_routing_header(headers.items())
        if duplicated is not None:
            return InboundLadderRejection(code=HEADER_MISMATCH, message=f"{duplicated} header appears more than once")
        try:
            return classify_inbound_request(message.raw, headers=dict(headers))
        except ValueError:
            return _UNREADABLE

    def _param_mismatch(
        self, message: Request, headers: Headers, raw_headers: StarletteHeaders, hosted: HostedServer
    ) -> InboundLadderRejection | None:
        """Why the `Mcp-Param-*` headers contradict the arguments, if they do."""
        if message.method != "tools/call" or message.params is None:
            return None
        name: Any = message.params.get("name")
        arguments: Any = message.params.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            return None
        schema = self._handles.reserved_schema(hosted, name) or hosted.tools.schema(name)
        if schema is None or not (self._is_annotated(schema) or any(key.startswith(_PARAM_PREFIX) for key in headers)):
            return None
        try:
            return validate_mcp_param_headers(schema, cast("Mapping[str, Any]", arguments or {}), raw_headers)
        except ValueError:
            return _UNREADABLE

    def _is_annotated(self, schema: Any) -> bool:
        """Whether a schema has an `x-mcp-header` anywhere: most have none, and the SDK's walk is long."""
        known = self._annotated.get(id(schema))
        if known is None or known[0] is not schema:
            if len(self._annotated) >= 4096:
                self._annotated.clear()
            known = self._annotated[id(schema)] = (schema, X_MCP_HEADER_KEY in repr(schema))
        return known[1]

    # Running

    async def _start(self, call: Call, hosted: HostedServer, *, remote: bool) -> None:
        if call.method == "tools/call" and call.params is not None:
            name = call.params.get("name")
            if self._handles.is_reserved(hosted, name):
                self._own(call, self._handles.serve(call, hosted, cast("str", name)))
                return
            if hosted.tools.takes_session(name) or self._handles.declares_handle(hosted, name):
                await self._deliver(call, hosted, remote=remote)
                return
        self._own(call, self._handles.serve_plain(call, hosted))

    def _own(self, call: Call, work: Awaitable[dict[str, Any]]) -> None:
        """Run `work` as a task of the node's; what comes of it is the call's outcome."""

        listens = call.method == _LISTEN
        running = self.listening if listens else self.running
        shares = self._listening_shares if listens else self._call_shares
        tenant = call.tenant.tenant

        async def run() -> None:
            running.add(call)
            shares.take(tenant)
            try:
                call.resolve(await work)
            except asyncio.CancelledError as error:
                call.fail(error)
                raise
            except Exception as error:
                call.fail(error)
            finally:
                running.discard(call)
                shares.give_back(tenant)

        self._tasks.spawn(run())

    async def _deliver(self, call: Call, hosted: HostedServer, *, remote: bool) -> None:
        """Hand the call to the actor that its handle names."""
        address = self._handles.address(call)
        if address is None:
            call.resolve(self._handles.unknown(hosted))
            return
        reply = self._handles.reply(call, hosted)
        envelope = Envelope(call, Access.EXCLUSIVE, reply, None, copy_context())
        # The task that the link has made for it has just begun so too.
        envelope.at_once = remote
        call.envelope = envelope
        try:
            actor = self._registry.live(address)
            if not isinstance(actor, SessionActor):
                await screen(self._registry, address, call.tenant)
                actor = self._registry.live(address)
            if isinstance(actor, SessionActor):
                envelope.access = actor.accept(call)
            self._registry.deliver(address, envelope)
        except (ActorError, DuplicateRequest, Elsewhere) as error:
            reply.fail(error)
        except BaseException:
            # As when the HTTP server cancels the request meanwhile: nobody else knows of the call.
            call.let_go()
            raise

    def end_listening(self) -> None:
        """End every `subscriptions/listen` stream: the node is draining, and they would never end by themselves."""
        for call in list(self.listening):
            call.cancel()

    def cancel_all(self) -> None:
        """Cancel every call that runs outside a session."""
        for call in [*self.running, *self.listening]:
            call.cancel()

    # Answering

    async def _respond(self, call: Call, inbound: Inbound) -> None:
        exchange = call.exchange
        try:
            await self._posts.first(exchange)
            if exchange.quiet and not exchange.finished and await self._left_while_quiet(exchange, inbound.receive):
                call.cancel()
                return
        except asyncio.CancelledError:
            call.cancel()
            raise
        if exchange.elsewhere is not None:
            raise Elsewhere(exchange.elsewhere)
        if exchange.quiet and exchange.finished:
            if exchange.no_room is not None and exchange.refusal is not None:
                address = None if _opens(call) else exchange.no_room.address
                raise NoRoom(address, exchange.no_room, exchange.refusal, call.id)
            await self._posts.answer(inbound.send, exchange)
            return
        gone = True
        try:
            gone = await write_stream(
                exchange, inbound.receive, inbound.send, numbered=False, keep_alive=keep_alive_of(inbound)
            )
        finally:
            if gone:
                # In this era a closed connection is a cancellation.
                call.cancel()

    async def _left_while_quiet(self, exchange: Exchange, receive: Receive) -> bool:
        """Wait for the first message, `JSON_PATIENCE` at most; True if the client leaves first."""
        gone = False

        async def watch() -> None:
            nonlocal gone
            await disconnected(receive)
            gone = True
            exchange.nudge()

        async with TaskOwner() as tasks:
            watcher = tasks.spawn(watch())
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(JSON_PATIENCE):
                        await exchange.first()
            finally:
                watcher.cancel()
        return gone


def _opens(call: Call) -> bool:
    return call.method == "tools/call" and (call.params or {}).get("name") == OPEN_SESSION


def _refusal(rejection: InboundLadderRejection) -> Refusal:
    return Refusal(
        rejection.code, rejection.message, rejection.data, status=ERROR_CODE_HTTP_STATUS.get(rejection.code, 400)
    )
