"""`HandleCalls`: the modern era's calls that open, close, name or list sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from ...stores import Address
from ..actor import Access
from ..envelope import Envelope, FutureReply, Reply
from ..errors import ActorEnded, ActorNotFound, Elsewhere, NodeDraining, RegistryFull
from ..registry import Registry
from .announcement import Announce, announced
from .authorization import authorize, screen
from .errors import ForeignSession
from .handle_schema import declares_handle
from .handles import (
    CLOSE_SESSION,
    OPEN_SESSION,
    add_session_tools,
    handle_address,
    reserved_schema,
    text_result,
    unknown_handle,
)
from .hosting import HostedServer
from .limiting import CallLimits
from .messages import MOVED, Authorize, Call, OpenHandle
from .session_kind import SESSION, SessionSeed
from .stateless import learn_tools, serve_stateless
from .tenants.helpers import TenantHelpers

__all__ = ["HandleCalls"]


class HandleCalls:
    """What a modern-era call means where the server's tools take sessions."""

    def __init__(
        self,
        registry: Registry,
        *,
        ttl: float,
        ended: Callable[[Address], None],
        timeout: float = 30.0,
        announce: Announce | None = None,
        helpers: TenantHelpers | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        """`ttl`: seconds a session lives after its last use. `timeout`: seconds to open or close one.
        `helpers`: what tools get from their tenant.

        `ended` is told of each session that a client closes: its streams are somebody else's to end. `announce` is
        awaited for each that is opened, before its handle is returned.
        """
        self._registry = registry
        self._ttl = ttl
        self._ended = ended
        self._timeout = timeout
        self._announce = announce
        self._helpers = helpers
        self._limits = limits

    def is_reserved(self, hosted: HostedServer, tool: object) -> bool:
        """Whether `tool` is one of the two session tools, on a server that takes sessions."""
        return tool in (OPEN_SESSION, CLOSE_SESSION) and hosted.tools.offer_sessions

    def reserved_schema(self, hosted: HostedServer, tool: str) -> dict[str, Any] | None:
        """The input schema of a session tool; None for any other."""
        return reserved_schema(tool) if self.is_reserved(hosted, tool) else None

    def declares_handle(self, hosted: HostedServer, tool: object) -> bool:
        """Whether a tool of a server that is no `MCPServer` declares the handle itself."""
        return isinstance(tool, str) and not hosted.tools.managed and declares_handle(hosted.tools.schema(tool))

    def address(self, call: Call) -> Address | None:
        """The session that the call's handle names; None if it names none."""
        return handle_address((call.params or {}).get("arguments"))

    def unknown(self, hosted: HostedServer) -> dict[str, Any]:
        return unknown_handle(hosted.lowlevel)

    def reply(self, call: Call, hosted: HostedServer) -> Reply:
        """The reply of a call by handle: an unknown handle is a tool error that names no reason."""
        return _HandleReply(call, hosted)

    async def serve(self, call: Call, hosted: HostedServer, tool: str) -> dict[str, Any]:
        """Run `open_session` or `close_session`; the tool's result.

        Raises:
            ActorError: The store is out of reach, or the node takes no more sessions.
            Elsewhere: The session is not this node's; nothing was done.
        """
        if tool == OPEN_SESSION:
            return await self._open(call, hosted)
        address = self.address(call)
        if address is None:
            return self.unknown(hosted)
        try:
            question = Authorize(call.tenant, by_handle=True)
            await authorize(self._registry, address, question, timeout=self._timeout)
            await self._registry.end(address)
        except (ActorNotFound, ActorEnded, ForeignSession):
            return self.unknown(hosted)
        self._ended(address)
        return text_result(hosted.lowlevel, "The session is closed.")

    async def _open(self, call: Call, hosted: HostedServer) -> dict[str, Any]:
        limits, allowance = self._limits, call.allowance
        if allowance is not None:
            beginning = allowance.begin(call, stateful=False, read_only=False)
            if beginning is not None:
                await beginning
        if limits is None:
            return await self._opened(call, hosted)
        if (opening := limits.opening(call.tenant)) is not None:
            await opening
        try:
            return await self._opened(call, hosted)
        except (RegistryFull, NodeDraining, Elsewhere):
            # Of what fails otherwise it is not known whether the session is there; the next census tells.
            limits.not_opened(call.tenant)
            raise

    async def _opened(self, call: Call, hosted: HostedServer) -> dict[str, Any]:
        assert call.route is not None
        address = Address.new(SESSION)
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        message = OpenHandle(call.tenant, call.route.protocol_version)
        envelope = Envelope(message, Access.EXCLUSIVE, FutureReply(opened), None, copy_context())
        self._registry.open(address, SessionSeed("handle", call.tenant), call.tenant.tenant, envelope)
        async with asyncio.timeout(self._timeout):
            await opened
        await announced(self._announce, address)
        text = f"Session {address.id} is open. It lives for {_duration(self._ttl)} after its last use."
        return text_result(hosted.lowlevel, text, structured={"session": address.id, "expires_in_seconds": self._ttl})

    async def serve_plain(self, call: Call, hosted: HostedServer) -> dict[str, Any]:
        """Run a call that names no session; a listing of the tools also tells how to get one."""
        if call.method == "tools/call" and not hosted.tools.known:
            # Only now is it known whether a tool declares the handle.
            await learn_tools(call, hosted, self._helpers)
            tool: Any = (call.params or {}).get("name")
            if self.is_reserved(hosted, tool):
                return await self.serve(call, hosted, tool)
            if self.declares_handle(hosted, tool):
                return await self._hand_on(call, hosted)
        result = await serve_stateless(call, hosted, self._helpers)
        if call.method == "tools/list":
            hosted.tools.note(result["tools"])
            if hosted.tools.offer_sessions:
                return add_session_tools(hosted, result)
        return result

    async def _hand_on(self, call: Call, hosted: HostedServer) -> dict[str, Any]:
        address = self.address(call)
        if address is None:
            return self.unknown(hosted)
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call.envelope = Envelope(call, Access.EXCLUSIVE, _HandedOn(outcome), None, copy_context())
        try:
            await screen(self._registry, address, call.tenant)
            self._registry.deliver(address, call.envelope)
            return await outcome
        except (ActorNotFound, ActorEnded, ForeignSession):
            return self.unknown(hosted)


class _HandedOn(FutureReply):
    def resolve(self, result: Any) -> None:
        if result is not MOVED:
            super().resolve(result)


class _HandleReply:
    __slots__ = ("_call", "_hosted")

    def __init__(self, call: Call, hosted: HostedServer) -> None:
        self._call = call
        self._hosted = hosted

    def resolve(self, result: Any) -> None:
        self._call.resolve(result)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, ActorNotFound | ActorEnded | ForeignSession):
            self._call.resolve(unknown_handle(self._hosted.lowlevel))
        else:
            self._call.fail(error)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            count = round(seconds / size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{seconds:g} seconds"
