"""Many tenants while owners die. `make chaos ARGS=tenants` plays 100,000 calls of 50 of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chaos.http import Connection
from chaos.scale import chosen
from chaos.scenes import SCENES
from chaos.tenants_server import mark_of
from chaos.watch import Watch, Watched
from support.nats import nats_missing
from support.serving import serving


@pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")
async def test_no_secret_reaches_another_tenant_while_owners_die(tmp_path: Path):
    verdict = await SCENES["tenants"](tmp_path, chosen())
    print(verdict.numbers)
    assert verdict.faults == [], verdict.numbers


async def test_a_mark_of_another_is_found_wherever_the_bytes_are_cut():
    mine, theirs = mark_of("a"), mark_of("b")
    data = f"xx {mine} yy {theirs} zz {mine}".encode()
    for cut in range(len(data) + 1):
        watch = Watch()
        reader = Watched(watch, 2**16)
        reader.asks(mine, "a test")
        for piece in (data[:cut], data[cut:]):
            if piece:
                reader.feed_data(piece)
        assert len(watch.faults) == 1, cut
        assert theirs in watch.faults[0]
        assert watch.bytes == len(data)


async def test_a_mark_that_the_frames_of_an_answer_cut_is_found_too():
    theirs = mark_of("b").encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (theirs[:9], theirs[9:]))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    watch = Watch()
    async with serving(serve) as port:
        connection = Connection("127.0.0.1", port, watch)
        connection.asks(mark_of("a"), "a test")
        answer = await connection.request("GET", "/")
        connection.close()
    assert answer.body == theirs
    assert len(watch.faults) == 1
