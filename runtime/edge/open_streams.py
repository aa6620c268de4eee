"""`OpenStreams`: ends the streams whose credential has expired or was revoked, at the node that clients reached."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from starlette.requests import Request as HTTPRequest

from ...actors.clock import Clock, SystemClock
from ...actors.session import TenantContext
from ..credentials.tenants import Forbidden, TenantResolver, Unauthenticated, resolve_tenant
from ..wire.http import Headers, Scope, Send
from .watched_stream import WatchedStream

__all__ = ["CHECK_EVERY", "OpenStreams"]

logger = logging.getLogger(__name__)

CHECK_EVERY: Final = 60.0
"""Seconds after which the resolver is asked again about a credential of which streams are open."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at what is due, and so the most by which a stream outlives its credential."""
ANSWER_TIMEOUT: Final = 10.0
ASKED_AT_ONCE: Final = 16

_Key = tuple[object, ...]
_OF_A_REQUEST: Final = frozenset(
    (
        b"accept",
        b"content-length",
        b"content-type",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
    )
)
"""Headers that differ from request to request of one client, and that no resolver can tell anything by."""


class _Credential:
    """One that streams are open with: whatever of a request a resolver may look at."""

    __slots__ = ("allows", "check_at", "expires", "key", "party", "scope", "streams")

    def __init__(self, key: _Key, scope: Scope, tenant: TenantContext, check_at: float) -> None:
        self.key = key
        self.scope = scope
        self.party = (tenant.tenant, tenant.principal)
        self.allows = (tenant.plan, tenant.scopes)
        self.expires = tenant.expires
        self.check_at = check_at
        self.streams: set[WatchedStream] = set()


class OpenStreams:
    """bounded: knows the streams that are open, and the credentials of those. While there are none nothing is done.

    A credential that cannot be checked now keeps its streams: that is no verdict on it.
    """

    def __init__(
        self,
        resolver: TenantResolver,
        *,
        check_every: float = CHECK_EVERY,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`check_every`: seconds. `wall`: Unix time, which credentials expire by."""
        self._resolver = resolver
        self._check_every = check_every
        self._clock = clock or SystemClock()
        self._wall = wall
        self._credentials: dict[_Key, _Credential] = {}
        self._some = asyncio.Event()
        self._checking = False
        self.streams = 0
        self.expired = self.revoked = self.checks = 0

    def watch(self, scope: Scope, headers: Headers, tenant: TenantContext, send: Send) -> WatchedStream:
        """The response to one request, for the task that serves it; `left` when that is done."""
        return WatchedStream(send, scope, headers, tenant, self._opened)

    def _opened(self, stream: WatchedStream) -> None:
        scope, tenant = stream.scope, stream.tenant
        lines = [line for line in scope["headers"] if line[0].lower() not in _OF_A_REQUEST]
        address = scope.get("client") or ("",)
        key = (tenant.tenant, tenant.principal, scope["path"], scope.get("query_string", b""), address[0], *lines)
        credential = self._credentials.get(key)
        if credential is None:
            check_at = self._clock.monotonic() + self._check_every
            credential = self._credentials[key] = _Credential(key, scope, tenant, check_at)
            self._some.set()
        else:
            # The resolver has been asked a moment ago.
            credential.expires = tenant.expires
            if (tenant.plan, tenant.scopes) != credential.allows:
                # What the older streams may tell was decided by what the credential allowed as they began.
                self._end_lasting(credential)
                credential.allows = (tenant.plan, tenant.scopes)
        credential.streams.add(stream)
        stream.of = credential
        self.streams += 1

    def left(self, stream: WatchedStream) -> None:
        """The request of `stream` has been served. Idempotent."""
        credential = stream.of
        stream.leave()
        if isinstance(credential, _Credential) and stream in credential.streams:
            credential.streams.discard(stream)
            self.streams -= 1
            if not credential.streams and self._credentials.get(credential.key) is credential:
                del self._credentials[credential.key]

    async def run(self) -> None:
        """End what is to end, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                if not self._credentials:
                    self._some.clear()
                    await self._some.wait()
                await self._clock.sleep(LOOK_EVERY)
                due = self._look()
                if due and not self._checking:
                    self._checking = True
                    tasks.create_task(self._check_all(due))

    def check_soon(self, tenant: str | None = None) -> None:
        """Ask about the credentials of `tenant`, or of all, with the next look: something is known to have changed."""
        now = self._clock.monotonic()
        for credential in self._credentials.values():
            if tenant is None or credential.party[0] == tenant:
                credential.check_at = now

    def _look(self) -> list[_Credential]:
        now, wall = self._clock.monotonic(), self._wall()
        due: list[_Credential] = []
        for credential in self._credentials.values():
            if credential.expires is not None and credential.expires <= wall:
                self._expire(credential)
            if credential.check_at <= now:
                due.append(credential)
        return due

    def _expire(self, credential: _Credential) -> None:
        for stream in credential.streams:
            if stream.lasts and not stream.ended:
                self.expired += 1
                stream.end()

    async def _check_all(self, due: list[_Credential]) -> None:
        waiting = iter(due)

        async def ask() -> None:
            for credential in waiting:
                if credential.streams:
                    await self._check(credential)
                    # Resolvers that do not wait would else hold up everything else.
                    await asyncio.sleep(0)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(ASKED_AT_ONCE, len(due))):
                    tasks.create_task(ask())
        finally:
            self._checking = False

    async def _check(self, credential: _Credential) -> None:
        self.checks += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                tenant = await resolve_tenant(self._resolver, HTTPRequest(credential.scope))
        except Unauthenticated:
            if credential.expires is not None and credential.expires <= self._wall():
                # It has run out, as was known when the call began that may still run.
                self._expire(credential)
            else:
                self._revoke(credential)
        except Forbidden:
            self._revoke(credential)
        except Exception as error:
            logger.info("a credential of which streams are open cannot be checked now: %r", error)
        else:
            if (tenant.tenant, tenant.principal) != credential.party:
                self._revoke(credential)
            else:
                credential.expires = tenant.expires
                if (tenant.plan, tenant.scopes) != credential.allows:
                    credential.allows = (tenant.plan, tenant.scopes)
                    self._end_lasting(credential)
        credential.check_at = self._clock.monotonic() + self._check_every

    def _end_lasting(self, credential: _Credential) -> None:
        """End the streams with which nothing is lost."""
        for stream in credential.streams:
            if stream.lasts and not stream.ended:
                self.revoked += 1
                stream.end()

    def _revoke(self, credential: _Credential) -> None:
        for stream in credential.streams:
            if not stream.ended:
                self.revoked += 1
                stream.end()

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "streams_watched": self.streams,
            "streams_watched_credentials": len(self._credentials),
            "streams_expired_total": self.expired,
            "streams_revoked_total": self.revoked,
            "streams_credential_checks_total": self.checks,
        }
