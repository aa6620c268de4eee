"""The stream client of `bench streams`: it must wait for what is meant, and take no other answer for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from support.serving import serving
from understudy.bench.asgi import Refused
from understudy.bench.event_stream import EventStream, get_request
from understudy.bench.resume import EVENTS, SEEN, BrokenStream, resume_all
from understudy.bench.stream_events import require_all

HEAD = b"HTTP/1.1 200 \r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(number: int, text: str) -> bytes:
    body = f'id: a.1-{number}\nevent: message\ndata: {{"message":"{text}"}}\n\n'.encode()
    return b"%x\r\n%b\r\n" % (len(body), body)


@asynccontextmanager
async def sending(pieces: list[bytes], *, then_close: bool = False) -> AsyncGenerator[int]:
    """The port of a server that sends `pieces` to whoever asks it for anything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not then_close:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with serving(serve) as port:
        yield port


@asynccontextmanager
async def reading(pieces: list[bytes], *, then_close: bool = False) -> AsyncGenerator[EventStream]:
    async with sending(pieces, then_close=then_close) as port:
        stream = await EventStream.open("127.0.0.1", port)
        try:
            stream.send(get_request("s"))
            yield stream
        finally:
            stream.close()


async def test_what_is_awaited_is_found_however_it_arrives() -> None:
    whole = HEAD + event(1, "one") + event(2, "two")
    for pieces in ([whole], [whole[at : at + 1] for at in range(len(whole))]):
        async with reading(pieces) as stream:
            await stream.until(b'"two"')
            # What came earlier is found as well.
            await stream.until(b'"one"')
            assert stream.count(b'"message"') == 2


async def test_the_id_of_an_event_is_its_own_and_not_its_neighbours() -> None:
    async with reading([HEAD + event(1, "one") + event(2, "two") + event(3, "three")]) as stream:
        await stream.until(b'"three"')
        assert stream.id_of(b'"two"') == "a.1-2"


async def test_an_id_before_carriage_returns_is_an_id_too() -> None:
    async with reading([HEAD + b'20\r\nid: 7-1\r\ndata: {"one"}\r\n\r\n\r\n']) as stream:
        await stream.until(b'"one"')
        assert stream.id_of(b'"one"') == "7-1"


async def test_an_event_without_an_id_cannot_be_resumed_from() -> None:
    async with reading([HEAD + b'10\r\ndata: {"one"}\n\n\r\n']) as stream:
        await stream.until(b'"one"')
        with pytest.raises(Refused, match="no id"):
            stream.id_of(b'"one"')


async def test_a_refusal_is_no_stream_even_if_it_holds_the_text() -> None:
    async with reading([b'HTTP/1.1 400 \r\ncontent-length: 5\r\n\r\n"one"']) as stream:
        with pytest.raises(Refused, match="400"):
            await stream.until(b'"one"')


async def test_a_connection_that_ends_before_the_text_is_told() -> None:
    async with reading([HEAD + event(1, "one")], then_close=True) as stream:
        with pytest.raises(Refused, match="ended before"):
            await stream.until(b'"two"')
        assert stream.lost


async def test_a_stream_that_only_listens_counts_keep_alives() -> None:
    comment = b"e\r\n: keep-alive\n\n\r\n"
    async with reading([HEAD + event(1, "one"), comment, comment], then_close=True) as stream:
        await stream.until(b'"one"')
        stream.only_listen()
        while not stream.lost:
            await asyncio.sleep(0.001)
        assert stream.comments <= 2
        assert stream.count(b"keep-alive") == 0


def step(number: int) -> bytes:
    return event(number, f"step {number}")


RESULT = b'12\r\ndata: {"result":1}\n\n\r\n'
MISSED = [step(number) for number in range(SEEN + 1, EVENTS + 1)]


async def test_a_resumed_stream_with_exactly_what_was_missed_is_timed() -> None:
    async with sending([HEAD, *MISSED, RESULT]) as port:
        assert await resume_all([BrokenStream("s", "a.1-500")], lambda: port) > 0


@pytest.mark.parametrize(
    "came",
    [MISSED[1:], [MISSED[0], *MISSED], [step(SEEN), *MISSED], [*MISSED[:-1], MISSED[0]]],
    ids=["gap", "double", "seen", "wrong"],
)
async def test_a_resumed_stream_with_anything_else_stops_the_benchmark(came: list[bytes]) -> None:
    async with sending([HEAD, *came, RESULT]) as port:
        with pytest.raises(Refused, match="500 were missed"):
            await resume_all([BrokenStream("s", "a.1-500")], lambda: port)


def test_a_stream_that_lacks_an_event_is_never_counted() -> None:
    require_all(b"notifications/progress" * 3, 3)
    for came in (2, 4):
        with pytest.raises(Refused, match=f"{came} of its 3"):
            require_all(b"notifications/progress" * came, 3)
