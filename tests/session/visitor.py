"""A client by hand: it calls a hosted app as a function and sees every message, in both eras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Self

from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import Runtime
from understudy.stores import Address, MemoryStore

HANDSHAKE = "2025-11-25"
MODERN = "2026-07-28"
ERAS = ("handshake", "modern")
"""Seconds; what is waited for takes a small part of one."""

_CLIENT = {"name": "visitor", "version": "1"}
_CAPABILITIES: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {"listChanged": True}}
_ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class ToolFailed(Exception):
    """The tool's result is an error; the message is its text."""


class RPCError(Exception):
    """The answer is a JSON-RPC error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]


class Stream:
    """One HTTP request under way: its status, its headers and, as they come, its messages."""

    def __init__(self, request_id: Any = None) -> None:
        self.request_id = request_id
        self.status = 0
        self.headers: dict[str, str] = {}
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._text = b""
        self.error: Exception | None = None
        """What the app raised, which no app should."""
        self.body = b""
        """All that was received so far."""

    async def run(self, app: Any, scope: dict[str, Any], body: bytes) -> None:
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        try:
            await app(scope, receive, self._take)
        except Exception as error:
            self.error = error
        finally:
            self.began.set()
            self.ended.set()
            self._messages.put_nowait(None)

    async def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.began.set()
            return
        self._text += message.get("body", b"")
        self.body += message.get("body", b"")
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            *events, self._text = self._text.split(b"\n\n")
            for event in events:
                data = b"".join(line[6:] for line in event.split(b"\n") if line.startswith(b"data: "))
                if data:
                    self._messages.put_nowait(json.loads(data))
        elif not message.get("more_body", False) and self._text.startswith(b"{"):
            self._messages.put_nowait(json.loads(self._text))

    async def message(self) -> dict[str, Any]:
        """The next message; `AssertionError` if there is none any more."""
        async with asyncio.timeout(PATIENCE):
            message = await self._messages.get()
        assert message is not None, f"the stream has ended (status {self.status})"
        return message

    async def outcome(self) -> dict[str, Any]:
        """The response; what comes before it is passed over."""
        while "method" in (message := await self.message()):
            pass
        return message

    async def result(self) -> dict[str, Any]:
        """The result of the response.

        Raises:
            RPCError: It is an error.
        """
        message = await self.outcome()
        if "error" in message:
            raise RPCError(message["error"])
        assert message["id"] == self.request_id
        return message["result"]

    async def value(self) -> Any:
        """The plain value that the called tool returned.

        Raises:
            ToolFailed, RPCError: It did not return.
        """
        result = await self.result()
        if result.get("isError"):
            raise ToolFailed(result["content"][0]["text"])
        structured = result.get("structuredContent")
        if structured is None:
            return result["content"][0]["text"] if result["content"] else None
        return structured.get("result", structured)

    async def failure(self) -> str:
        """The text of the error that the called tool ended in."""
        try:
            value = await self.value()
        except ToolFailed as error:
            return str(error)
        raise AssertionError(f"the tool returned {value!r}")

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()


class Host:
    """A runtime with a server, and the ways to visit it. Any other ASGI app may be visited too."""

    def __init__(self, runtime: Any, *, app: Any = None) -> None:
        self.runtime = runtime
        self._app = app or runtime.app
        self._tasks = TaskOwner()
        self._open: list[Stream] = []

    @property
    def registry(self) -> Any:
        return self.runtime._node.registry

    def stats(self, name: str) -> int | float:
        return self.runtime.stats()[name]

    def begin(
        self, message: Mapping[str, Any] | None, headers: Mapping[str, str], *, method: str = "POST", path: str = "/mcp"
    ) -> Stream:
        body = json.dumps(message).encode() if message is not None else b""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost")] + [(key.encode(), value.encode()) for key, value in headers.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
        }
        stream = Stream((message or {}).get("id"))
        self._open.append(stream)
        self._tasks.spawn(stream.run(self._app, scope, body))
        return stream

    async def visit(self, era: str = "handshake", *, credential: str | None = None, **options: Any) -> Visitor:
        """A visitor with a session of its own."""
        visitor = Visitor(self, era, credential=credential, **options)
        await visitor.open()
        return visitor

    async def sleep(self, visitor: Visitor) -> None:
        """Put the visitor's session out of memory, as if it had been idle."""
        async with asyncio.timeout(PATIENCE):
            while not await self.registry.passivate(visitor.address):
                assert visitor.address in self.registry, "the session is not in memory"
                await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for stream in self._open:
            stream.leave()
        await self._tasks.__aexit__(*exc)
        if exc[0] is None:
            assert [stream.error for stream in self._open if stream.error is not None] == []


class Visitor:
    """One client with one session: by handshake, or by state handle."""

    def __init__(
        self,
        host: Host,
        era: str = "handshake",
        *,
        credential: str | None = None,
        session: str | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> None:
        self.host = host
        self.era = era
        self.session = session or ""
        self.capabilities = dict(capabilities if capabilities is not None else _CAPABILITIES)
        self.ids = count(1)
        self._headers = {**_ACCEPT} | ({"authorization": credential} if credential else {})

    async def open(self) -> None:
        if self.era == "modern":
            opened = await self.begin("tools/call", {"name": "open_session", "arguments": {}}).value()
            self.session = opened["session"]
            return
        params = {"protocolVersion": HANDSHAKE, "capabilities": self.capabilities, "clientInfo": _CLIENT}
        stream = self.begin("initialize", params)
        await stream.result()
        self.session = stream.headers["mcp-session-id"]
        assert await self.notify("notifications/initialized") == 202

    @property
    def address(self) -> Address:
        return Address("session", self.session)

    def headers(self, **more: str) -> dict[str, str]:
        if self.era == "modern":
            return {**self._headers, "mcp-protocol-version": MODERN, **more}
        session = {"mcp-session-id": self.session, "mcp-protocol-version": HANDSHAKE} if self.session else {}
        return {**self._headers, **session, **more}

    def begin(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        id: Any = None,
        param_session: str | None = None,
        bare: bool = False,
    ) -> Stream:
        """Send a request; its answer is read from the stream.

        The state handle among the arguments also travels as a header: as it is, as `param_session`, or not (`bare`).
        """
        id = next(self.ids) if id is None else id
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method}
        if self.era == "handshake":
            return self.host.begin(message | ({"params": params} if params is not None else {}), self.headers())
        meta = {
            PROTOCOL_VERSION_META_KEY: MODERN,
            CLIENT_INFO_META_KEY: _CLIENT,
            CLIENT_CAPABILITIES_META_KEY: self.capabilities,
        }
        given = dict(params or {})
        given["_meta"] = {**given.get("_meta", {}), **meta}
        headers = self.headers(**{"mcp-method": method})
        if (name := given.get("name") or given.get("uri")) is not None:
            headers["mcp-name"] = str(name)
        arguments = given.get("arguments")
        handle = param_session or (arguments.get("session") if isinstance(arguments, dict) else None)
        if handle is not None and not bare:
            headers["mcp-param-session"] = handle
        return self.host.begin({**message, "params": given}, headers)

    def call(self, tool: str, /, *, id: Any = None, stateless: bool = False, **arguments: Any) -> Stream:
        """Begin a call of a tool; in the modern era it names the session, unless `stateless`."""
        if self.era == "modern" and not stateless:
            arguments["session"] = self.session
        return self.begin("tools/call", {"name": tool, "arguments": arguments}, id=id)

    async def ask(self, tool: str, /, **arguments: Any) -> Any:
        """Call a tool; the plain value that it returns."""
        return await self.call(tool, **arguments).value()

    async def failure(self, tool: str, /, **arguments: Any) -> str:
        """Call a tool that fails; the text of its error."""
        return await self.call(tool, **arguments).failure()

    async def request(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self.begin(method, params).result()

    async def tools(self) -> dict[str, dict[str, Any]]:
        tools: dict[str, dict[str, Any]] = {}
        page = await self.request("tools/list", {})
        while True:
            tools |= {tool["name"]: tool for tool in page["tools"]}
            if page.get("nextCursor") is None:
                return tools
            page = await self.request("tools/list", {"cursor": page["nextCursor"]})

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        message = {"jsonrpc": "2.0", "method": method} | ({"params": params} if params is not None else {})
        return await self._status(self.host.begin(message, self.headers()))

    async def cancel(self, call: Stream) -> None:
        """As the era does it: by a notification, or by leaving. Returns when the server knows."""
        if self.era == "modern":
            call.leave()
            async with asyncio.timeout(PATIENCE):
                await call.ended.wait()
        else:
            assert await self.notify("notifications/cancelled", {"requestId": call.request_id}) == 202

    async def answer(self, question: Any, result: Mapping[str, Any]) -> int:
        """Answer a question of the server's; the HTTP status."""
        return await self._status(self.host.begin({"jsonrpc": "2.0", "id": question, "result": result}, self.headers()))

    async def listen(self) -> Stream:
        """The standalone stream."""
        stream = self.host.begin(None, self.headers(), method="GET")
        await stream.began.wait()
        return stream

    async def end(self) -> int:
        return await self._status(self.host.begin(None, self.headers(), method="DELETE"))

    async def _status(self, stream: Stream) -> int:
        async with asyncio.timeout(PATIENCE):
            await stream.ended.wait()
        return stream.status


class Kept:
    """A store that outlives the runtime that closes it: what a file is to a process."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def aclose(self) -> None:
        pass


@asynccontextmanager
async def hosted(server: object, **options: Any) -> AsyncIterator[Host]:
    """`server` hosted in a runtime for as long as the block lasts."""
    runtime = Runtime(server, **options)
    async with runtime, Host(runtime) as host:
        yield host


@asynccontextmanager
async def hosted_by_the_sdk(server: Any) -> AsyncIterator[Host]:
    """The same on the SDK's own HTTP stack, to compare with."""
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(json_response=True, transport_security=security)
    async with app.router.lifespan_context(app), Host(None, app=app) as host:
        yield host
