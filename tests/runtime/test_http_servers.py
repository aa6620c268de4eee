"""The three HTTP servers behind one function: each carries the app, streams, speaks TLS and stops when asked."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.certificates import self_signed
from support.patience import PATIENCE
from understudy.runtime.commands.http_servers import HTTP_SERVERS, TLS, HttpServer

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
