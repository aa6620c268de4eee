"""Bodies that are too large, too slow, or wrapped in something: given up at a bound, and nothing runs."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

import pytest
from edge.client import hosting, initialize_params
from edge.server import make_server
from edge.test_bodies import INVALID_REQUEST, eras, request, send

# Sizes


async def pieces(parts: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


def counted(parts: Iterable[bytes], taken: list[int]) -> Iterator[bytes]:
    for part in parts:
        taken[0] += 1
        yield part


async def test_a_body_in_pieces_is_put_together() -> None:
    async with eras() as (client, _):
        body = client.message("ping", id=9)
        for size in (1, 2, 7, len(body)):
            parts = [body[at : at + size] for at in range(0, len(body), size)]
            call = await client.send(body=pieces([b"", *parts, b"", b""]))
            assert call.reply["id"] == 9


async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    async with hosting(make_server(), max_body=1000) as client:
        await client.open()
        for length in ("1001", "9" * 18, "9" * 30, "9" * 5000):
            taken = [0]
            call = await client.send(body=counted([b"x"] * 10, taken), headers={"content-length": length})
            assert (call.status, taken[0]) == (413, 0)
            assert call.json["error"]["code"] == INVALID_REQUEST


async def test_a_body_that_turns_out_too_large_is_read_no_further() -> None:
    async with hosting(make_server(), max_body=1000) as client:
        await client.open()
        for length in (None, "10", "1000", "-5", "1e9", "", "abc", "\xb2"):
            taken = [0]
            call = await client.send(body=counted([b" " * 100] * 1000, taken), headers={"content-length": length})
            assert call.status == 413
            assert taken[0] == 11
        exact = client.message("ping")
        assert (await client.send(body=[exact, b" " * (1000 - len(exact))])).status == 200


async def test_a_compressed_body_is_refused() -> None:
    async with eras() as clients:
        for client in clients:
            for coding in ("gzip", "br", "deflate", "zstd", "x-unknown", "identity, gzip", "gzip, gzip"):
                call = await send(client, gzip.compress(request()), **{"content-encoding": coding}).answered()
                assert call.status == 415
                assert call.header("accept-encoding") == "identity"
                assert "Content-Encoding" in call.json["error"]["message"]
        for coding in ("identity", "IDENTITY", ""):
            assert (await send(clients[0], request(), **{"content-encoding": coding}).answered()).status == 200


# Time


async def never(first: bytes) -> AsyncGenerator[bytes]:
    yield first
    await asyncio.Event().wait()


async def drops(body: bytes) -> AsyncGenerator[bytes]:
    while True:
        for at in range(len(body)):
            await asyncio.sleep(0.005)
            yield body[at : at + 1]
        body = b" "


@pytest.mark.parametrize("body", [never, drops])
async def test_a_body_that_never_ends_is_given_up(body: Any) -> None:
    async with hosting(make_server(), body_timeout=0.1) as client:
        await client.open()
        call = await client.send(body=body(client.message("tools/call", {"name": "increment"})))
        assert call.status == 408
        assert call.json["error"]["message"] == "Request body did not arrive in time"
        assert len(client.runtime.edge._handshake._posts._bodies._patience) == 0
        assert await client.tool("increment") == 1


async def test_a_client_that_leaves_before_its_body_is_whole_runs_nothing() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        call = client.start(body=never(client.message("tools/call", {"name": "increment"})[:-1]))
        await client.ask("ping")
        call.disconnect()
        assert call.status == 0
        assert await client.tool("increment") == 1


async def test_the_time_of_one_slow_body_is_not_anothers() -> None:
    async with hosting(make_server(), body_timeout=0.3) as client:
        await client.open()
        slow = [client.start(body=never(b"{")) for _ in range(20)]
        for _ in range(10):
            assert (await client.ask("ping")).status == 200
        for call in slow:
            assert (await call.answered()).status == 408


async def test_initialize_with_a_huge_client_is_bounded_by_the_body() -> None:
    async with hosting(make_server(), max_body=200_000) as client:
        params = initialize_params() | {"clientInfo": {"name": "x" * 150_000, "version": "1"}}
        assert (await client.ask("initialize", params)).status == 200
        params = initialize_params() | {"clientInfo": {"name": "x" * 250_000, "version": "1"}}
        assert (await client.ask("initialize", params)).status == 413
