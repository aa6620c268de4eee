"""A balancer that knows nothing: an HTTP/1.1 reverse proxy, round robin by request, without affinity.

Each request goes to the next backend over a connection of its own, whatever connection it came by. Bodies stream both
ways as they come. It reads no cookie, no session id and no body; who hangs up, on either side, hangs up on the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Self

from understudy.actors.task_owner import TaskOwner

CHUNK = 64 * 1024
MAX_HEAD = 64 * 1024
CONNECT_TIMEOUT = 5.0
PROBE_TIMEOUT = 1.0
LINGER = 1.0
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"upgrade")
)

_EMPTY = b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

Backend = tuple[str, int]


class _Broken(Exception):
    """A side closed, or said what is no HTTP: there is nothing to go on with."""

    def __init__(self, side: _Side) -> None:
        super().__init__()
        self.side = side


class _Head:
    """The first line and the headers of a request or a response."""

    def __init__(self, raw: bytes) -> None:
        self.passed = False
        """Its body has been handed on to the end."""
        self.first, *lines = raw[:-4].split(b"\r\n")
        self.headers = [
            (name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)
        ]

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def chunked(self) -> bool:
        return (self.get(b"transfer-encoding") or b"").lower() == b"chunked"

    @property
    def length(self) -> int | None:
        text = self.get(b"content-length")
        return int(text) if text is not None and text.isdigit() else None

    def bytes(self, *more: bytes) -> bytes:
        lines = [name + b": " + value for name, value in self.headers if name not in HOP_BY_HOP]
        return b"\r\n".join((self.first, *lines, *more, b"", b""))


class _Side:
    """One connection: what was read too early waits for whoever reads next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._early = b""

    async def _more(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return await self.reader.read(CHUNK)
        except OSError as error:
            raise _Broken(self) from error

    async def _until(self, end: bytes) -> bytes:
        seen = b""
        while end not in seen:
            more = await self._more()
            if not more or len(seen) > MAX_HEAD:
                raise _Broken(self)
            seen += more
        found, _, self._early = seen.partition(end)
        return found + end

    async def head(self) -> _Head:
        return _Head(await self._until(b"\r\n\r\n"))

    async def closed(self) -> None:
        """Return when the peer has closed. What it sends meanwhile is kept, the next request for one."""
        kept = b""
        try:
            while len(kept) < MAX_HEAD:
                more = await self._more()
                if not more:
                    return
                kept += more
            await asyncio.Event().wait()
        except _Broken:
            return
        finally:
            self._early = kept + self._early

    async def say(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise _Broken(self) from error

    async def pass_body(self, to: _Side, head: _Head, *, until_close: bool) -> None:
        """Hand on the body that belongs to `head` as it comes."""
        if head.chunked:
            while True:
                line = await self._until(b"\r\n")
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    await to.say(line + await self._until(b"\r\n"))
                    return
                await to.say(line)
                await self._pass(to, size + 2)
        elif (length := head.length) is not None:
            await self._pass(to, length)
        elif until_close:
            while more := await self._more():
                await to.say(more)

    async def _pass(self, to: _Side, size: int) -> None:
        while size:
            more = await self._more()
            if not more:
                raise _Broken(self)
            self._early = more[size:]
            more = more[:size]
            size -= len(more)
            await to.say(more)

    async def finish(self) -> None:
        """Close so that what was said arrives: what the peer still sends is thrown away for a moment."""
        with contextlib.suppress(OSError, _Broken):
            async with asyncio.timeout(LINGER):
                self.writer.write_eof()
                while await self._more():
                    pass

    def hang_up(self) -> None:
        self.writer.transport.abort()


async def _ended(task: asyncio.Task[None]) -> None:
    """Two must not read one connection."""
    task.cancel()
    await asyncio.wait((task,))


class Balancer:
    """Listens on a free port of 127.0.0.1, in a thread of its own: `with Balancer(backends) as balancer`.

    Args:
        backends: host and port of each node.
        watch_ready: seconds between looks at each backend's `/readyz`, which alone tells who gets requests; None: every
            backend gets its share, whatever state it is in. A backend that takes no connection is passed over.
    """

    def __init__(self, backends: Sequence[Backend], *, watch_ready: float | None = None) -> None:
        self.backends = list(backends)
        self.served: Counter[Backend] = Counter()
        """Requests that each backend has begun to answer."""
        self._turn = itertools.count()
        self._ready = set(self.backends)
        self._watch_ready = watch_ready
        self._connections: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="balancer", daemon=True)
        self._failure: BaseException | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The MCP endpoint, at the default path."""
        return f"{self.base_url}/mcp"

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        try:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            server = await asyncio.start_server(self._take, "127.0.0.1", 0, limit=CHUNK)
            self.port = server.sockets[0].getsockname()[1]
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._started.set()
        try:
            async with TaskOwner() as tasks:
                watchers = []
                if self._watch_ready is not None:
                    watchers = [tasks.spawn(self._watch(backend, self._watch_ready)) for backend in self.backends]
                await self._stop.wait()
                for task in (*watchers, *self._connections):
                    task.cancel()
        finally:
            server.close()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _watch(self, backend: Backend, every: float) -> None:
        while True:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT):
                    reader, writer = await asyncio.open_connection(*backend)
                    try:
                        writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                        ready = (await reader.readline()).split()[1:2] == [b"200"]
                    finally:
                        writer.transport.abort()
            except OSError:
                ready = False
            (self._ready.add if ready else self._ready.discard)(backend)
            await asyncio.sleep(every)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        client = _Side(reader, writer)
        try:
            while await self._serve(client):
                pass
        except (_Broken, ValueError):
            pass
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        finally:
            self._connections.discard(task)
            client.hang_up()

    async def _serve(self, client: _Side) -> bool:
        """One request; whether the client's connection may carry another."""
        request = await client.head()
        if request.get(b"expect") is not None:
            await client.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.headers = [(name, value) for name, value in request.headers if name != b"expect"]
        connected = await self._connect()
        if connected is None:
            await client.say(b"HTTP/1.1 503 Service Unavailable" + _EMPTY)
            await client.finish()
            return False
        backend, node = connected
        try:
            async with TaskOwner() as tasks:
                uploading = tasks.spawn(self._upload(client, node, request))
                try:
                    return await self._answer(client, request, backend, node, uploading)
                finally:
                    uploading.cancel()
        finally:
            node.hang_up()

    async def _upload(self, client: _Side, node: _Side, request: _Head) -> None:
        """Pass the request on, then watch for the client's leaving."""
        try:
            await node.say(request.bytes(b"connection: close"))
            await client.pass_body(node, request, until_close=False)
            request.passed = True
            await client.closed()
        except (_Broken, ValueError) as broken:
            if isinstance(broken, _Broken) and broken.side is node:
                # One that answers before it has the whole body closes; what it answered is still to be passed on.
                return
        node.hang_up()

    async def _answer(
        self, client: _Side, request: _Head, backend: Backend, node: _Side, uploading: asyncio.Task[None]
    ) -> bool:
        try:
            response = await node.head()
        except _Broken:
            await _ended(uploading)
            await client.say(b"HTTP/1.1 502 Bad Gateway" + _EMPTY)
            await client.finish()
            return False
        self.served[backend] += 1
        empty = request.first.startswith(b"HEAD ") or response.first.split(b" ")[1] in (b"204", b"304")
        endless = not empty and not response.chunked and response.length is None
        asked = (request.get(b"connection") or b"").lower() == b"close"
        goes_on = request.passed and not endless and not asked
        await client.say(response.bytes(b"connection: " + (b"keep-alive" if goes_on else b"close")))
        if not empty:
            await node.pass_body(client, response, until_close=True)
        if not goes_on:
            await _ended(uploading)
            await client.finish()
        return goes_on

    async def _connect(self) -> tuple[Backend, _Side] | None:
        """The next backend in turn; one that takes no connection has got nothing, so the one after it may."""
        first = next(self._turn)
        for number in range(first, first + len(self.backends)):
            backend = self.backends[number % len(self.backends)]
            if backend not in self._ready:
                continue
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    return backend, _Side(*await asyncio.open_connection(*backend, limit=CHUNK))
            except OSError:
                continue
        return None
