"""The tests' own balancer: that it knows nothing, and does no more than it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from support import Balancer, free_port
from support.patience import PATIENCE
from support.serving import serving

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Backend:
    """A server of one answer, which notes the heads it was sent and the connections that were closed on it."""

    def __init__(self, name: str, handler: Handler | None = None) -> None:
        self.name = name
        self.heads: list[bytes] = []
        self.gone = asyncio.Event()
        self.ready = True
        self._handler = handler or self._name
        self.port = 0

    async def _name(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + self.name.encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /readyz"):
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\n\r\n" % (200 if self.ready else 503))
            else:
                self.heads.append(head)
                await self._handler(head, reader, writer)
            await writer.drain()
            await reader.read()
            self.gone.set()
        except (OSError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Backend]:
        async with serving(self._serve, port=self.port, limit=2**20) as self.port:
            yield self


@asynccontextmanager
async def balanced(
    *backends: Backend, watch_ready: float | None = None
) -> AsyncIterator[tuple[Balancer, httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        for backend in backends:
            await stack.enter_async_context(backend.running())
        addresses = [("127.0.0.1", backend.port) for backend in backends]
        balancer = await asyncio.to_thread(Balancer(addresses, watch_ready=watch_ready).__enter__)
        stack.push_async_callback(asyncio.to_thread, balancer.__exit__)
        yield balancer, await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE))


async def test_requests_of_one_connection_take_turns() -> None:
    async with balanced(Backend("a"), Backend("b"), Backend("c")) as (balancer, http):
        said = [(await http.post(balancer.url, headers={"mcp-session-id": "same"})).text for _ in range(7)]
        assert "".join(said) == "abcabca"
        assert sorted(balancer.served.values()) == [2, 2, 3]


async def test_a_body_arrives_whole_whether_chunked_or_not() -> None:
    async def echo(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"chunked" in head:
            body = await reader.readuntil(b"0\r\n\r\n")
        else:
            body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"y" * 70_000

    async with balanced(Backend("a", echo)) as (balancer, http):
        whole = b"x" * 3_000_000
        assert (await http.post(balancer.url, content=whole)).content == whole
        assert (await http.post(balancer.url, content=parts())).content.count(b"y") == 210_000
        assert (await http.post(balancer.url, content=b"")).content == b""


async def test_a_stream_is_not_held_back_and_ends_where_it_ends() -> None:
    go_on = asyncio.Event()

    async def stream(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go_on.wait()
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")

    async with (
        balanced(Backend("a", stream)) as (balancer, http),
        http.stream("GET", balancer.url) as answer,
        asyncio.timeout(PATIENCE),
    ):
        parts = answer.aiter_bytes()
        assert await anext(parts) == b"first"
        go_on.set()
        assert await anext(parts) == b"last"
        with pytest.raises(StopAsyncIteration):
            await anext(parts)


async def test_who_hangs_up_hangs_up_on_the_other() -> None:
    async def silent(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")

    async def breaks(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        writer.transport.abort()

    patient, broken = Backend("a", silent), Backend("b", breaks)
    async with balanced(patient, broken) as (balancer, http), asyncio.timeout(PATIENCE):
        async with http.stream("GET", balancer.url) as answer:
            await anext(answer.aiter_bytes())
        await patient.gone.wait()
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(balancer.url)


async def test_what_may_have_run_is_not_sent_again() -> None:
    async def dies(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    dead, alive = Backend("a", dies), Backend("b")
    async with balanced(dead, alive) as (balancer, http):
        assert (await http.post(balancer.url)).status_code == 502
        assert (len(dead.heads), len(alive.heads)) == (1, 0)


async def test_a_node_that_takes_no_connection_is_passed_over() -> None:
    async with Backend("b").running() as alive:
        refusing = ("127.0.0.1", free_port())
        balancer = await asyncio.to_thread(Balancer([refusing, ("127.0.0.1", alive.port)]).__enter__)
        try:
            async with httpx.AsyncClient() as http:
                assert [(await http.post(balancer.url)).text for _ in range(4)] == ["b"] * 4
        finally:
            await asyncio.to_thread(balancer.__exit__)


async def test_readiness_is_followed_if_asked() -> None:
    one, other = Backend("a"), Backend("b")
    async with balanced(one, other, watch_ready=0.02) as (balancer, http), asyncio.timeout(PATIENCE):
        one.ready = False
        while (await http.post(balancer.url)).text + (await http.post(balancer.url)).text != "bb":
            await asyncio.sleep(0.02)
        other.ready = False
        while (await http.post(balancer.url)).status_code != 503:
            await asyncio.sleep(0.02)
        one.ready = True
        while (await http.post(balancer.url)).text != "a":
            await asyncio.sleep(0.02)
