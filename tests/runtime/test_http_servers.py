"""The three HTTP servers behind one function: each carries the app, streams, speaks TLS and stops when asked."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.certificates import self_signed
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.runtime.commands import hypercorn_server
from understudy.runtime.commands.http_servers import HTTP_SERVERS, TLS, HttpServer, Stop

EVERY = pytest.mark.parametrize("name", list(HTTP_SERVERS))


class App:
    """Answers `/` with the HTTP version, echoes a body at `/echo`, and streams at `/stream` until let go."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.ends: list[Any] = []
        self.go_on = asyncio.Event()
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.kinds.append(scope["type"])
        assert scope["type"] == "http"
        self.ends += [scope["client"], scope["server"]]
        body = scope["http_version"].encode()
        if scope["path"] == "/echo":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
        kind = b"text/event-stream" if scope["path"] == "/stream" else b"text/plain"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            body = b"data: last\n\n"
        await send({"type": "http.response.body", "body": body})


class Running:
    def __init__(self, app: App, port: int, stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.app = app
        self.port = port
        self.stop = stop
        self.task = task

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def running(run: HttpServer, tls: TLS | None = None) -> AsyncGenerator[Running]:
    """The server with an `App`, on a free port; stopped at the end within a deadline."""
    sock = socket.create_server(("127.0.0.1", 0))
    app, port, stop = App(), sock.getsockname()[1], asyncio.Event()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run(app, sock, tls, stop))
        try:
            yield Running(app, port, stop, task)
        finally:
            stop.set()


@EVERY
async def test_a_server_carries_requests_and_stops_when_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is under way at the end: there is nothing to wait for.
    monkeypatch.setattr("understudy.runtime.commands.http_servers.GRACE", 10 * PATIENCE)
    async with running(HTTP_SERVERS[name]) as server:
        async with httpx.AsyncClient() as client:
            assert (await client.get(server.url())).text == "1.1"
            body = b"x" * 300_000
            assert (await client.post(server.url("/echo"), content=body)).content == body
        server.stop.set()
        async with asyncio.timeout(PATIENCE):
            await server.task
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


@EVERY
async def test_the_ends_of_a_connection_are_a_host_and_a_number(name: str) -> None:
    async with running(HTTP_SERVERS[name]) as server:
        async with httpx.AsyncClient() as client:
            await client.get(server.url())
        assert server.app.ends[1] == ("127.0.0.1", server.port)
        assert [type(part) for part in server.app.ends[0]] == [str, int]


@EVERY
async def test_a_connection_made_before_the_server_runs_is_served(name: str) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port, stop = sock.getsockname()[1], asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(HTTP_SERVERS[name](App(), sock, None, stop))
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        stop.set()


@EVERY
async def test_a_response_in_flight_when_the_server_is_asked_to_stop_arrives_whole(name: str) -> None:
    async with (
        running(HTTP_SERVERS[name]) as server,
        httpx.AsyncClient() as client,
        client.stream("GET", server.url("/stream")) as response,
    ):
        lines = response.aiter_lines()
        assert await anext(lines) == "data: first"
        server.stop.set()
        await asyncio.sleep(0.05)
        server.app.go_on.set()
        assert "data: last" in [line async for line in lines]


@EVERY
async def test_the_lifespan_of_the_app_is_not_the_servers_to_run(name: str) -> None:
    async with running(HTTP_SERVERS[name]) as server, httpx.AsyncClient() as client:
        await client.get(server.url())
    assert server.app.kinds == ["http"]


@EVERY
async def test_a_server_speaks_tls(name: str, tmp_path: Path) -> None:
    tls = TLS(*self_signed(tmp_path))
    context = ssl.create_default_context(cafile=str(tls.cert))
    async with running(HTTP_SERVERS[name], tls) as server, httpx.AsyncClient(verify=context) as client:
        assert (await client.get(server.url(scheme="https"))).text == "1.1"


@pytest.mark.parametrize("name", ["hypercorn", "granian"])
async def test_http_2_is_negotiated_over_tls(name: str, tmp_path: Path) -> None:
    tls = TLS(*self_signed(tmp_path))
    context = ssl.create_default_context(cafile=str(tls.cert))
    async with running(HTTP_SERVERS[name], tls) as server, httpx.AsyncClient(verify=context, http2=True) as client:
        response = await client.get(server.url(scheme="https"))
        assert (response.http_version, response.text) == ("HTTP/2", "2")


async def test_small_pieces_of_an_answer_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nagle's algorithm, and a client that acknowledges late, would make 40 ms of each."""
    told: list[int] = []
    made = hypercorn_server._Connections._made

    def tell(self: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, reader, writer)

    monkeypatch.setattr(hypercorn_server._Connections, "_made", tell)
    async with running(HTTP_SERVERS["hypercorn"]) as server, httpx.AsyncClient() as client:
        await client.get(server.url())
    assert told
    assert all(told)


async def test_many_streams_share_one_http_2_connection_without_tls() -> None:
    streams = 90  # httpx opens no more than 100 on one connection
    async with running(HTTP_SERVERS["hypercorn"]) as server:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(http1=False, http2=True, limits=limits, timeout=15) as client:

            async def one() -> list[str]:
                async with client.stream("GET", server.url("/stream")) as response:
                    assert response.http_version == "HTTP/2"
                    lines = response.aiter_lines()
                    first = await anext(lines)
                    opened.append(first)
                    if len(opened) == streams:
                        server.app.go_on.set()
                    return [first, *[line async for line in lines if line]]

            opened: list[str] = []
            results = await asyncio.gather(*(one() for _ in range(streams)))
    assert results == [["data: first", "data: last"]] * streams


async def test_a_stream_that_outlasts_the_grace_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.commands.http_servers.GRACE", 0.1)
    async with (
        running(HTTP_SERVERS["hypercorn"]) as server,
        httpx.AsyncClient() as client,
        client.stream("GET", server.url("/stream")) as response,
    ):
        assert response.status_code == 200
        server.stop.set()
        async with asyncio.timeout(PATIENCE):
            await server.task
    assert server.app.cancelled


LOOPS = [asyncio.new_event_loop]
with suppress(ImportError):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("turns", range(7))
def test_a_request_that_comes_while_the_server_stops_is_refused_or_answered_before_it_returns(
    turns: int, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """no-silent-loss: the node leaves its cluster when the server has returned. `turns` of the loop after the stop."""

    async def scene(tasks: TaskOwner) -> None:
        app, stop = App(), asyncio.Event()
        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        serving = tasks.spawn(HTTP_SERVERS["hypercorn"](app, sock, None, stop))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        stop.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except ConnectionRefusedError:
            client = None
        else:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            app.go_on.set()
        async with asyncio.timeout(PATIENCE):
            await serving
        begun = len(app.kinds)
        if client is not None:
            assert begun == 1
            with client:
                assert b"data: last" in b"".join(iter(partial(client.recv, 4096), b""))
        await asyncio.sleep(0.01)
        assert len(app.kinds) == begun, "nobody waited for it"
        writer.close()

    async def owned() -> None:
        async with TaskOwner() as tasks:
            await scene(tasks)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(owned())


async def test_whoever_connects_while_the_server_stops_is_answered_or_refused() -> None:
    """What waits in the socket's queue is served; nothing is reset."""
    outcomes: Counter[str] = Counter()

    def visit(port: int) -> None:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    said = b"".join(iter(partial(client.recv, 4096), b""))
            except ConnectionRefusedError:
                return
            except OSError as error:
                outcomes[type(error).__name__] += 1
            else:
                outcomes["answered" if said.startswith(b"HTTP/1.1 200") else "unanswered"] += 1

    for _ in range(5):
        async with running(HTTP_SERVERS["hypercorn"]) as server, asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(asyncio.to_thread(visit, server.port))
            await asyncio.sleep(0.05)
            server.stop.set()
    assert outcomes["answered"] > 40
    # One may be made in the microseconds between the last look and the end of the socket.
    assert outcomes.total() - outcomes["answered"] <= 1, outcomes


class Exhausted(socket.socket):
    """A process at its limit of open files, for one connection."""

    refused = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.refused:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_too_many_open_files_delay_a_connection_and_end_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("understudy.runtime.commands.hypercorn_server.RETRY", 0.01)
    monkeypatch.setattr("understudy.runtime.commands.http_servers._whole", lambda sock: sock)
    sock, app, stop = Exhausted(), App(), asyncio.Event()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient() as client, TaskOwner() as tasks:
        tasks.spawn(HTTP_SERVERS["hypercorn"](app, sock, None, stop))
        assert (await client.get(f"http://127.0.0.1:{sock.getsockname()[1]}/")).text == "1.1"
        stop.set()
    assert sock.refused == 1
    assert "raise the limit of open files" in caplog.text


async def test_a_request_in_flight_has_as_long_as_it_is_given() -> None:
    stop = Stop()
    stop.grace = 0.1
    sock, app = socket.create_server(("127.0.0.1", 0)), App()
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient() as client, TaskOwner() as tasks:
        serving = tasks.spawn(HTTP_SERVERS["hypercorn"](app, sock, None, stop))
        async with client.stream("GET", f"http://127.0.0.1:{sock.getsockname()[1]}/stream"):
            stop.set()
            await serving
    assert app.cancelled
