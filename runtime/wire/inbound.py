"""`Inbound`: one MCP request after all checks that need not look into its body."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from starlette.requests import Request

from ...actors.session import TenantContext
from .http import Headers, Receive, Scope, Send

__all__ = ["Inbound"]


@dataclass(slots=True)
class Inbound:
    """Who asks, for what, and where the answer goes. Its body is bytes as they came, parsed only where it is served."""

    scope: Scope
    headers: Headers
    """As `fold_headers` gives them."""
    tenant: TenantContext
    receive: Receive
    """Tells only of the client's leaving: the body has been read."""
    send: Send
    body: bytes = b""
    """Empty unless the request is a POST."""
    started: float = field(default_factory=perf_counter)
    """When the body was there, by `perf_counter`, in seconds."""
    remote: bool = False
    """It came from another node's edge, which holds the client's connection and keeps it alive."""
    purpose: str = ""
    """What it is, if it is no client's request: see `Notices`."""
    again: bool = False
    """An earlier try of it may have run here, and may run still."""
    _shown: Request | None = field(default=None, init=False, repr=False)

    def shown(self) -> Request:
        """The request as resolvers and handlers are shown it, made when it is first asked for."""
        if self._shown is None:
            self._shown = Request(self.scope)
        return self._shown

    @property
    def revision(self) -> str:
        """The revision of the handshake era that the client speaks by its header. None was sent before 2025-06-18."""
        return self.headers.get(b"mcp-protocol-version", _BEFORE_THE_HEADER).decode("latin-1")


_BEFORE_THE_HEADER: Final = b"2025-03-26"
