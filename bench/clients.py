"""The least an MCP client must say, in both eras, with every byte that can be prepared prepared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from types import MappingProxyType
from typing import Any

from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY

from .asgi import ASGIApp, Caller, Exchange, Refused

__all__ = [
    "HANDSHAKE_VERSION",
    "HEADERS",
    "INITIALIZE",
    "INITIALIZED",
    "MODERN_VERSION",
    "HandshakeClient",
    "ModernClient",
    "PreparedCall",
]

HANDSHAKE_VERSION = "2025-11-25"
MODERN_VERSION = "2026-07-28"
CLIENT_INFO = {"name": "bench", "version": "1"}

HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class PreparedCall:
    """A `tools/call` whose text is fixed but for its id: ids in flight must differ, as a real client's do."""

    __slots__ = ("_ids", "_tail", "name")

    def __init__(self, name: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None = None) -> None:
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        if meta is not None:
            params["_meta"] = meta
        self.name = name
        self._tail = b',"method":"tools/call","params":' + json.dumps(params).encode() + b"}"
        self._ids = count(1)

    def body(self) -> bytes:
        return b'{"jsonrpc":"2.0","id":%d' % next(self._ids) + self._tail


def checked(exchange: Exchange) -> Exchange:
    """The exchange, if it is a successful call; cheap enough to stand inside a measured loop.

    Raises:
        Refused: It is an error of HTTP, of JSON-RPC or of the tool.
    """
    body = exchange.body
    if exchange.status != 200 or b'"result"' not in body or b'"isError":true' in body or b'"isError": true' in body:
        raise Refused(f"a measured call failed with status {exchange.status}: {body[:300]!r}")
    return exchange


_NONE: Mapping[str, str] = MappingProxyType({})


class HandshakeClient:
    """One session of the handshake era."""

    __slots__ = ("_app", "_caller", "_own", "session_id")

    def __init__(self, app: ASGIApp, session_id: str, own: Mapping[str, str] = _NONE) -> None:
        """`own`: headers of each request besides those of the protocol."""
        self._app = app
        self._own = own
        self.session_id = session_id
        self._caller = Caller(app, self._session_headers())

    def _session_headers(self) -> dict[str, str]:
        session = {"mcp-session-id": self.session_id, "mcp-protocol-version": HANDSHAKE_VERSION}
        return {**HEADERS, **self._own, **session}

    @classmethod
    async def open(cls, app: ASGIApp, own: Mapping[str, str] = _NONE) -> HandshakeClient:
        """`initialize`, then `notifications/initialized`. `own`: headers of each request, such as a credential.

        Raises:
            Refused: The server did not open a session.
        """
        answer = await Caller(app, {**HEADERS, **own}).send(INITIALIZE)
        session_id = answer.header(b"mcp-session-id")
        if answer.status != 200 or session_id is None or "result" not in answer.reply():
            raise Refused(f"initialize: status {answer.status}, {answer.body[:300]!r}")
        client = cls(app, session_id, own)
        accepted = await client._caller.send(INITIALIZED)
        if accepted.status != 202:
            raise Refused(f"notifications/initialized: status {accepted.status}, {accepted.body[:300]!r}")
        return client

    async def call(self, call: PreparedCall) -> Exchange:
        return checked(await self._caller.send(call.body()))

    async def close(self) -> None:
        """DELETE the session."""
        await Caller(self._app, self._session_headers(), method="DELETE").send()


class ModernClient:
    """A caller of the modern era: no session, every request carries its envelope."""

    __slots__ = ("_caller", "_prepared")

    def __init__(self, app: ASGIApp, name: str, arguments: dict[str, Any]) -> None:
        headers = {"mcp-protocol-version": MODERN_VERSION, "mcp-method": "tools/call", "mcp-name": name}
        self._caller = Caller(app, {**HEADERS, **headers})
        self._prepared = PreparedCall(name, arguments, meta=modern_meta())

    async def call(self) -> Exchange:
        return checked(await self._caller.send(self._prepared.body()))


def modern_meta() -> dict[str, Any]:
    """The envelope of a modern request."""
    return {
        PROTOCOL_VERSION_META_KEY: MODERN_VERSION,
        CLIENT_INFO_META_KEY: CLIENT_INFO,
        CLIENT_CAPABILITIES_META_KEY: {},
    }


INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": CLIENT_INFO},
    }
).encode()
