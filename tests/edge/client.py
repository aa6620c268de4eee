"""A client that drives an ASGI app by hand, so that a test sees every message: odd headers, bodies in pieces,
connections that are dropped, and readers that never read.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from edge.call import Body, Connections, HTTPCall, scope
from understudy.runtime import Runtime
from understudy.stores import Address

ACCEPT = "application/json, text/event-stream"
LATEST = "2025-11-25"
MODERN = "2026-07-28"
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}

Headers = Mapping[str, str | list[str] | None]


class Client:
    """A client in the handshake era. `session`, `revision` and `headers` go out with every request."""

    def __init__(self, connections: Connections, *, path: str = "/mcp") -> None:
        self.path = path
        self.runtime: Runtime
        self.session: str | None = None
        self.revision: str | None = None
        self.headers: dict[str, str] = {}
        self._connections = connections
        self._ids = itertools.count(1)

    def twin(self, **headers: str) -> Client:
        """Another client of the same app, with no session."""
        other = Client(self._connections, path=self.path)
        other.headers = dict(headers)
        return other

    def same_session(self) -> Client:
        """Another connection of the same client."""
        other = self.twin(**self.headers)
        other.session, other.revision = self.session, self.revision
        other._ids = self._ids
        return other

    def start(self, method: str = "POST", body: Body = b"", headers: Headers | None = None, **options: Any) -> HTTPCall:
        """Send a request and do not wait. Headers of value None are left out, a list is sent as several lines."""
        call = HTTPCall(self._scope(method, headers or {}, options.pop("path", self.path)), body, **options)
        self._connections.start(call)
        return call

    async def send(
        self, method: str = "POST", body: Body = b"", headers: Headers | None = None, **options: Any
    ) -> HTTPCall:
        """Send a request and wait until it is answered."""
        return await self.start(method, body, headers, **options).answered()

    def _scope(self, method: str, headers: Headers, path: str) -> dict[str, Any]:
        every: dict[str, str | list[str] | None] = {"host": "localhost:8000", "accept": ACCEPT}
        if method == "POST":
            every["content-type"] = "application/json"
        if self.session is not None:
            every["mcp-session-id"] = self.session
        if self.revision is not None:
            every["mcp-protocol-version"] = self.revision
        every |= self.headers
        every |= {name.lower(): value for name, value in headers.items()}
        lines = [
            (name.encode(), line.encode("latin-1"))
            for name, value in every.items()
            if value is not None
            for line in ([value] if isinstance(value, str) else value)
        ]
        return scope(method, path, lines)

    # JSON-RPC

    def message(self, method: str, params: Mapping[str, Any] | None = None, id: Any = ...) -> bytes:
        """A request with the next id, or with `id`."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": next(self._ids) if id is ... else id, "method": method}
        if params is not None:
            message["params"] = params
        return json.dumps(message).encode()

    def begin(self, method: str, params: Mapping[str, Any] | None = None, *, id: Any = ..., **options: Any) -> HTTPCall:
        return self.start(body=self.message(method, params, id), **options)

    async def ask(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> HTTPCall:
        return await self.begin(method, params, **options).answered()

    def begin_tool(self, name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> HTTPCall:
        params: dict[str, Any] = {"name": name, "arguments": dict(arguments or {})}
        if "token" in options:
            params["_meta"] = {"progressToken": options.pop("token")}
        return self.begin("tools/call", params, **options)

    async def tool(self, name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """What a tool returns."""
        return (await self.begin_tool(name, arguments, **options).answered()).value

    async def notify(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> HTTPCall:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        return await self.send(body=json.dumps(message).encode(), **options)

    async def respond(self, question: Any, result: Mapping[str, Any], **options: Any) -> HTTPCall:
        """Answer a request of the server's."""
        body = json.dumps({"jsonrpc": "2.0", "id": question, "result": result}).encode()
        return await self.send(body=body, **options)

    async def open(self, revision: str = LATEST) -> HTTPCall:
        """Open a session, and use it from here on."""
        self.session = self.revision = None
        opening = await self.ask("initialize", initialize_params(revision))
        assert opening.status == 200, opening.body
        self.session = opening.header("mcp-session-id")
        self.revision = opening.result["protocolVersion"]
        await self.notify("notifications/initialized")
        return opening


class ModernClient(Client):
    """A client in the modern era: the same calls, each standing alone."""

    version = MODERN

    def twin(self, **headers: str) -> ModernClient:
        other = ModernClient(self._connections, path=self.path)
        other.headers = dict(headers)
        return other

    def begin(self, method: str, params: Mapping[str, Any] | None = None, *, id: Any = ..., **options: Any) -> HTTPCall:
        params = dict(params or {})
        params["_meta"] = {**envelope(self.version), **params.get("_meta", {})}
        headers: dict[str, Any] = {"mcp-protocol-version": self.version, "mcp-method": method}
        name = params.get("uri" if method == "resources/read" else "name")
        if name is not None:
            headers["mcp-name"] = name
        arguments = params.get("arguments")
        if isinstance(arguments, dict) and isinstance(arguments.get("session"), str):
            headers["mcp-param-session"] = arguments["session"]
        headers |= options.pop("headers", {})
        return self.start(body=self.message(method, params, id), headers=headers, **options)

    async def notify(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> HTTPCall:
        headers = {"mcp-protocol-version": self.version, "mcp-method": method}
        return await super().notify(method, params, headers=headers | options.pop("headers", {}), **options)

    async def handle(self) -> str:
        """A new session's handle."""
        opened = (await self.begin_tool("open_session").answered()).result
        return opened["structuredContent"]["session"]


async def put_to_sleep(runtime: Runtime, id: str | None) -> None:
    """Have a session that does nothing leave memory."""
    registry: Any = runtime._node.registry
    assert await registry.passivate(Address("session", id or ""))


def initialize_params(revision: str = LATEST) -> dict[str, Any]:
    return {
        "protocolVersion": revision,
        "capabilities": CAPABILITIES,
        "clientInfo": {"name": "by-hand", "version": "1"},
    }


def envelope(version: str = MODERN) -> dict[str, Any]:
    """What each request of the modern era says of its client."""
    return {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": {"name": "by-hand", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
    }


@asynccontextmanager
async def connected(app: Callable[..., Any], kind: type[Client] = Client, *, path: str = "/mcp") -> AsyncGenerator[Any]:
    """A client of an app that runs. What it leaves open is cancelled at the end."""
    async with Connections(app) as connections:
        yield kind(connections, path=path)


@asynccontextmanager
async def hosting(server: object, **options: Any) -> AsyncGenerator[Client]:
    """A client of a node that hosts `server`."""
    async with Runtime(server, **options) as runtime, connected(runtime.app) as client:
        client.runtime = runtime
        yield client


@asynccontextmanager
async def hosting_modern(server: object, **options: Any) -> AsyncGenerator[ModernClient]:
    async with Runtime(server, **options) as runtime, connected(runtime.app, ModernClient) as client:
        client.runtime = runtime
        yield client
