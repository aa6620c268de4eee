"""The HTTP client of the cluster benchmarks: it must wait for whole answers, and take nothing else for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from support.serving import serving
from understudy.bench.asgi import Refused
from understudy.bench.clients import PreparedCall
from understudy.bench.cpu_time import CpuMeter
from understudy.bench.http_client import HttpConnection, RemoteSession, get

BODY = b'{"jsonrpc":"2.0","id":1,"result":{}}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 36\r\n\r\n" + BODY
EVENT = b"event: message\ndata: " + BODY + b"\n\n"
CHUNKED = (
    b"HTTP/1.1 200 \r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"%x\r\n" % len(EVENT)
    + EVENT
    + b"\r\n0\r\n\r\n"
)


@asynccontextmanager
async def answering(pieces: list[bytes], *, then_close: bool = False) -> AsyncGenerator[HttpConnection]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if then_close:
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async with serving(serve) as port:
        connection = await HttpConnection.open("127.0.0.1", port)
        try:
            yield connection
        finally:
            connection.close()


def whole(answer: bytes) -> list[bytes]:
    return [answer]


def byte_by_byte(answer: bytes) -> list[bytes]:
    return [answer[at : at + 1] for at in range(len(answer))]


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize("answer", [WHOLE, CHUNKED], ids=["length", "chunks"])
async def test_an_answer_is_whole_however_it_arrives(answer: bytes, cut: Callable[[bytes], list[bytes]]) -> None:
    async with answering(cut(answer)) as connection:
        for _ in range(2):
            found = await connection.send(b"GET / HTTP/1.1\r\n\r\n")
            assert found.status == 200
            assert found.reply() == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_a_connection_that_ends_early_is_no_answer() -> None:
    async with answering([WHOLE[:-5]], then_close=True) as connection:
        with pytest.raises(Refused, match="closed the connection"):
            await connection.send(b"GET / HTTP/1.1\r\n\r\n")


async def test_a_connection_that_was_closed_unused_is_made_anew() -> None:
    async with answering([WHOLE], then_close=True) as connection:
        for _ in range(2):
            assert (await connection.send(b"GET / HTTP/1.1\r\n\r\n")).status == 200
            await asyncio.sleep(0.05)


async def test_headers_keep_their_case_as_session_ids_must() -> None:
    answer = b"HTTP/1.1 200 OK\r\nMcp-Session-Id: aBc\r\ncontent-length: 0\r\n\r\n"
    async with answering([answer]) as connection:
        assert (await connection.send(b"GET / HTTP/1.1\r\n\r\n")).header(b"mcp-session-id") == "aBc"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 \r\ncontent-length: 36\r\n\r\n" + BODY,
        b'HTTP/1.1 200 \r\ncontent-length: 12\r\n\r\n{"error":{}}',
        b'HTTP/1.1 200 \r\ncontent-length: 27\r\n\r\n{"result":{"isError":true}}',
    ],
    ids=["status", "JSON-RPC error", "tool error"],
)
async def test_a_call_that_failed_stops_the_benchmark(answer: bytes) -> None:
    async with answering([answer]) as connection:
        with pytest.raises(Refused, match="a measured call failed"):
            await RemoteSession("x").call(connection, PreparedCall("add", {}))


async def test_nobody_there_is_no_status() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert await get("127.0.0.1", port, "/readyz") == 0


async def test_a_meter_counts_what_runs_inside_it_and_nothing_else() -> None:
    import os
    import time

    def burn(seconds: float) -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    async def run(operations: int) -> None:
        burn(0.1)

    meter = CpuMeter({"me": lambda: [os.getpid()]})
    burn(0.1)
    await meter.around(run)(10)
    burn(0.1)
    assert meter.operations == 10
    assert 0.07 <= meter.seconds["me"] <= 0.16
    assert meter.per_operation("me") == meter.seconds["me"] / 10
