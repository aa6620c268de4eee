"""`Edge`: the HTTP end. Speaks Streamable HTTP in both eras, owns no session state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Final

from mcp.shared.inbound import decode_header_value, unsupported_protocol_version_rejection
from mcp_types import INVALID_REQUEST
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from ...actors import Elsewhere
from ...actors.foreign_errors import ends_the_task
from ...actors.session import ANONYMOUS, SESSION, TenantContext
from ...actors.session.wire import SERVER_BUSY, Refusal, refusal_of
from ...stores import Address, AddressError
from ..audit.audit import AuditTrail
from ..audit.auditing import Asking
from ..credentials.tenants import TenantResolver, resolved_tenant
from ..fairness.admission import Admission
from ..fairness.blocking_threads import BlockingThreads
from ..fairness.thread_limiter import THREADS
from ..telemetry.asker import ASKER
from ..telemetry.tenant_numbers import TenantNumbers
from ..telemetry.tenant_tally import TALLY
from ..telemetry.trace import TRACE, trace_of
from ..wire.http import (
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    EncodedBody,
    Headers,
    Receive,
    Scope,
    Send,
    declared_size,
    fold_headers,
)
from ..wire.inbound import Inbound
from ..wire.refusals import Refused, refuse
from ..wire.routing import Leg, NoRoom, Router
from ..wire.security import HostGuard
from .edge_refusals import RESOLVER_TIMEOUT, unidentified, unreadable
from .handshake import HandshakeLeg
from .modern import ModernLeg
from .open_streams import OpenStreams
from .posts import Posts
from .unread import read_away

__all__ = ["Edge"]

logger = logging.getLogger(__name__)

_HANDSHAKE: Final = frozenset(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)


class Edge:
    """One MCP endpoint: checks that come before anything else, who is asking, which era, and for whom it is.

    The order of the checks is PROTOCOL.md's: Host and Origin, credential, then the era's own.
    """

    def __init__(
        self,
        *,
        guard: HostGuard,
        tenants: TenantResolver | None,
        posts: Posts,
        handshake: HandshakeLeg | None,
        modern: ModernLeg | None,
        numbers: TenantNumbers,
        router: Router | None = None,
        host_legs: Mapping[str, Leg] | None = None,
        audit: AuditTrail | None = None,
        admission: Admission | None = None,
        open_streams: OpenStreams | None = None,
        threads: BlockingThreads | None = None,
    ) -> None:
        """`router`: sends requests to other nodes; None: there are none. `host_legs`: what serves the calls of
        other nodes' host programs, by their purpose. `admission`: lets requests in; None: all at once. `open_streams`:
        ends them with their credentials; None: they last. `threads`: where the threads of calls are counted; None:
        nowhere.
        """
        self._guard = guard
        self._tenants = tenants
        self._posts = posts
        self._handshake = handshake
        self._modern = modern
        self._numbers = numbers
        self._router = router
        self._host_legs = dict(host_legs or {})
        self._audit = audit
        self._admission = admission
        self._open_streams = open_streams
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, repeated = fold_headers(scope["headers"])
        inbound = Inbound(scope, headers, ANONYMOUS, receive, send)
        asking = None
        if self._audit is not None:
            if not await self._audit.has_room():
                refusal = Refusal(SERVER_BUSY, "The audit trail is full", None, 503, 1.0)
                await self._turn_away(inbound, refusal)
                return
            asking = Asking(self._audit, scope["method"], _named_session(headers))
        barred = self._barred(headers, repeated)
        if barred is not None:
            await self._turn_away(inbound, barred)
            return
        tenant: TenantContext = ANONYMOUS
        if self._tenants is not None:
            ASKER.set(None)
            try:
                resolved = self._tenants(inbound.shown())
                if type(resolved) is TenantContext and resolved.expires is None:
                    tenant = resolved
                else:
                    tenant = await resolved_tenant(resolved, RESOLVER_TIMEOUT)
            except BaseException as error:
                if ends_the_task(error):
                    raise
                refusal, challenge = unidentified(error)
                await self._turn_away(inbound, refusal, *challenge)
                return
        if asking is not None:
            asking.tenant = tenant
        self._asks(tenant)
        inbound.tenant = tenant
        if self._open_streams is None:
            await self._serve(inbound)
        else:
            await self._serve_watched(self._open_streams, inbound)

    def _barred(self, headers: Headers, repeated: bytes | None) -> Refusal | None:
        """Why a request is refused, whoever sends it."""
        if repeated is not None:
            return Refusal(INVALID_REQUEST, f"{repeated.decode()} header appears more than once", status=400)
        if not self._guard.allows_host(headers.get(b"host")):
            return Refusal(INVALID_REQUEST, "Host not allowed", status=421)
        if not self._guard.allows_origin(headers.get(b"origin")):
            return Refusal(INVALID_REQUEST, "Origin not allowed", status=403)
        return None

    async def _serve_watched(self, open_streams: OpenStreams, inbound: Inbound) -> None:
        stream = open_streams.watch(inbound.scope, inbound.headers, inbound.tenant, inbound.send)
        inbound.send = stream.send
        try:
            await self._serve(inbound)
        except asyncio.CancelledError:
            if not stream.taken_back():
                raise
        else:
            stream.taken_back()
        finally:
            open_streams.left(stream)
        if stream.ended:
            await stream.finish()

    async def _serve(self, inbound: Inbound) -> None:
        send = inbound.send
        try:
            await self._take(inbound)
        except Refused as error:
            await refuse(read_away(inbound, send), error.refusal, request_id=error.request_id)
        except BodyTooSlow as error:
            await refuse(send, unreadable(error)[0])
        except (BodyTooLarge, EncodedBody) as error:
            refusal, more = unreadable(error)
            await refuse(read_away(inbound, send), refusal, *more)
        except ClientGone:
            logger.debug("a client left before its request was complete")
        except Elsewhere as error:
            await refuse(send, refusal_of(error, modern=False))

    async def serve_inbound(self, inbound: Inbound) -> None:
        """Serve a request at this node that another node's edge has taken, and checked as far as its headers go.

        Raises:
            Elsewhere, NoRoom: As a `Leg`: the other node is to look further.
        """
        host_leg = self._host_legs.get(inbound.purpose)
        if host_leg is not None:
            ASKER.set(None)
            TALLY.set(None)
        else:
            self._asks(inbound.tenant)
        if self._audit is not None and not inbound.purpose:
            named = _named_session(inbound.headers)
            Asking(self._audit, inbound.scope["method"], named, inbound.tenant, forwarded=True)
        try:
            if host_leg is not None:
                await host_leg(inbound)
            else:
                waiting = self._enter(inbound.tenant, len(inbound.body))
                if waiting is not None:
                    await waiting
                await self._leg(inbound.headers)(inbound)
        except NoRoom:
            raise
        except Refused as error:
            await refuse(inbound.send, error.refusal, request_id=error.request_id)

    async def _take(self, inbound: Inbound) -> None:
        headers, method = inbound.headers, inbound.scope["method"]
        TRACE.set(trace_of(headers))
        leg = self._leg(headers)
        # Before the body is read: whoever waits holds no more than a connection.
        waiting = self._enter(inbound.tenant, declared_size(headers))
        if waiting is not None:
            await waiting
        if method == "POST":
            inbound.body = await self._posts.read(headers, inbound.receive)
        inbound.started = perf_counter()
        # A method that no leg knows is nobody else's business.
        if self._router is None or method not in ("POST", "GET", "DELETE"):
            await leg(inbound)
        else:
            await self._router.route(inbound, _named_session(headers), leg)

    def _enter(self, tenant: TenantContext, size: int) -> asyncio.Future[None] | None:
        """See `Admission.enter`. From here on blocking code of the request runs in threads of its tenant's."""
        if self._threads is not None:
            THREADS.set((self._threads, tenant.tenant))
        return None if self._admission is None else self._admission.enter(tenant, size)

    async def _turn_away(self, inbound: Inbound, refusal: Refusal, *headers: tuple[bytes, bytes]) -> None:
        """Refuse a request of which it is not known whose it is."""
        TALLY.set(self._numbers.nobody)
        await refuse(read_away(inbound, inbound.send), refusal, *headers)

    def _asks(self, tenant: TenantContext) -> None:
        ASKER.set(tenant)
        TALLY.set(self._numbers.of(tenant.tenant))

    def _leg(self, headers: Headers) -> Leg:
        """
        Raises:
            Refused: The request is of an era that is not served here.
        """
        version = headers.get(b"mcp-protocol-version")
        if version is None or version in _HANDSHAKE:
            if self._handshake is not None:
                return self._handshake
            served = MODERN_PROTOCOL_VERSIONS
        else:
            if self._modern is not None:
                return self._modern
            served = HANDSHAKE_PROTOCOL_VERSIONS
        rejection = unsupported_protocol_version_rejection((version or b"").decode("latin-1"), served)
        assert rejection is not None
        raise Refused(Refusal(rejection.code, rejection.message, rejection.data, status=400))


def _named_session(headers: Headers) -> Address | None:
    """The session that the headers of a request name, in the words of its era."""
    version = headers.get(b"mcp-protocol-version")
    if version is None or version in _HANDSHAKE:
        line = headers.get(b"mcp-session-id")
        name = None if line is None else line.decode("latin-1")
    else:
        line = headers.get(b"mcp-param-session")
        try:
            name = None if line is None else decode_header_value(line.decode("latin-1"))
        except ValueError:
            # The SDK's decoder raises where an encoded value holds bytes beyond ASCII.
            return None
    if name is None:
        return None
    try:
        return Address.checked(SESSION, name)
    except AddressError:
        return None
