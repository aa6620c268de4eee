"""A client that drives an ASGI app by hand, so that a test sees every message: odd headers, bodies in pieces,
connections that are dropped, and readers that never read.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from understudy.actors.task_owner import TaskOwner
from understudy.runtime import Runtime

PATIENCE = 20.0
"""Seconds that a test waits for what should happen at once. A busy machine needs some of them."""
ACCEPT = "application/json, text/event-stream"
LATEST = "2025-11-25"
MODERN = "2026-07-28"
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}

Headers = Mapping[str, str | list[str] | None]
Body = bytes | Iterable[bytes] | AsyncIterable[bytes]


class BrokenResponse(AssertionError):
    """The app did not answer with exactly one complete response."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    id: str | None
    data: str
    retry: int | None = None

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.data)


class HTTPCall:
    """One request and what has come of it so far.

    `reads=False` is a client that takes the head of the response and nothing else.
    """

    def __init__(self, scope: dict[str, Any], body: Body, *, reads: bool = True) -> None:
        self.scope = scope
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.error: BaseException | None = None
        self._whole = isinstance(body, bytes)
        self._parts: Iterator[bytes] | AsyncIterator[bytes] = (
            iter((body,)) if isinstance(body, bytes) else aiter(body) if isinstance(body, AsyncIterable) else iter(body)
        )
        self._sent_all = False
        self._reads = reads
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self._parsed = 0
        self.returned = False

    async def run(self, app: Callable[..., Any]) -> None:
        """Call the app; what it raises is kept in `error`."""
        try:
            await app(self.scope, self._receive, self._send)
        except Exception as error:
            self.error = error
        except asyncio.CancelledError as error:
            self.error = error
            task = asyncio.current_task()
            assert task is not None
            if task.cancelling():
                raise
        finally:
            self.returned = True
            self._news.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._sent_all and not self._gone.is_set():
            parts = self._parts
            part = await anext(parts, None) if isinstance(parts, AsyncIterator) else next(parts, None)
            self._sent_all = part is None or self._whole
            return {"type": "http.request", "body": part or b"", "more_body": not self._sent_all}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if self.complete:
            raise BrokenResponse(f"{message['type']} after the end of the response")
        if message["type"] == "http.response.start":
            if self.status:
                raise BrokenResponse("a second start of the response")
            self.status = message["status"]
            self.headers = list(message["headers"])
            for name, value in self.headers:
                assert isinstance(name, bytes)
                assert isinstance(value, bytes)
                assert name == name.lower()
                assert b"\n" not in value
        elif message["type"] == "http.response.body":
            if not self.status:
                raise BrokenResponse("a body before the start of the response")
            if not self._reads:
                await asyncio.Event().wait()
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)
        else:
            raise BrokenResponse(f"a message of type {message['type']}")
        self._news.set()

    def disconnect(self) -> None:
        """The client is gone."""
        self._gone.set()

    # What has come

    def header(self, name: str) -> str | None:
        found = [value.decode("latin-1") for key, value in self.headers if key == name.lower().encode()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None

    @property
    def kind(self) -> str:
        return self.header("content-type") or ""

    @property
    def json(self) -> Any:
        assert self.kind == "application/json", (self.status, self.headers, self.body[:500])
        return json.loads(self.body, parse_constant=_no_json)

    @property
    def events(self) -> list[Event]:
        """All complete events so far, comments left out."""
        assert self.kind == "text/event-stream", (self.status, self.headers, self.body[:500])
        whole, _, _ = self.body.rpartition(b"\n\n")
        blocks = [_event(block) for block in whole.decode().split("\n\n") if block]
        return [event for event in blocks if event is not None]

    @property
    def comments(self) -> int:
        return sum(block.startswith(":") for block in self.body.decode().split("\n\n"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The JSON-RPC messages so far, however they were sent."""
        if self.kind == "application/json":
            return [self.json]
        return [event.message for event in self.events if event.data]

    @property
    def reply(self) -> dict[str, Any]:
        """The one JSON-RPC response."""
        replies = [message for message in self.messages if "method" not in message]
        assert len(replies) == 1, (self.status, self.body[:500])
        return replies[0]

    @property
    def result(self) -> dict[str, Any]:
        assert "result" in self.reply, self.reply
        return self.reply["result"]

    @property
    def failure(self) -> dict[str, Any]:
        assert "error" in self.reply, self.reply
        return self.reply["error"]

    @property
    def value(self) -> Any:
        """What a tool returned."""
        assert not self.result.get("isError"), self.result
        return self.result["structuredContent"]["result"]

    # Waiting

    async def until(self, happened: Callable[[], Any]) -> Any:
        """What `happened` returns, once it is true."""
        async with asyncio.timeout(PATIENCE):
            while not (found := happened()):
                if self.returned:
                    self._raise()
                    raise AssertionError(f"never came; the response: {self.status} {self.body[-500:]!r}")
                self._news.clear()
                await self._news.wait()
        return found

    async def started(self) -> HTTPCall:
        """Once the head of the response is there."""
        await self.until(lambda: self.status)
        return self

    async def event(self, number: int) -> Event:
        """The event with this index, once it is there."""
        await self.until(lambda: self.status and len(self.events) > number)
        return self.events[number]

    async def message(self, method: str) -> dict[str, Any]:
        """The first message with this method, once it is there."""
        return await self.until(
            lambda: self.status and next((m for m in self.messages if m.get("method") == method), None)
        )

    async def done(self) -> HTTPCall:
        """Once the app has returned. Raises what it raised."""
        async with asyncio.timeout(PATIENCE):
            while not self.returned:
                self._news.clear()
                await self._news.wait()
        self._raise()
        return self

    async def answered(self) -> HTTPCall:
        """Once the response is complete."""
        await self.done()
        assert self.complete, f"the app returned without a complete response: {self.status} {self.body[-500:]!r}"
        return self

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


class Connections:
    """The requests in flight to one app. Leaving the block cancels those that are not over."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self._owner = TaskOwner()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: HTTPCall) -> None:
        task = self._owner.spawn(call.run(self.app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> Self:
        await self._owner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._owner.__aexit__(None, None, None)


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


def scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="surrogateescape"),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
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


def _event(block: str) -> Event | None:
    fields: dict[str, list[str]] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    if not fields.keys() & {"id", "data", "event"}:
        return None
    assert all(len(values) == 1 for values in fields.values()), f"not one event: {block!r}"
    retry = fields.get("retry")
    return Event(fields.get("id", [None])[0], fields.get("data", [""])[0], int(retry[0]) if retry else None)


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
