"""bounded: what all streams of one session together keep in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from understudy.actors.session import exchange as exchanges
from understudy.actors.session.exchange import Exchange
from understudy.runtime.streams import stream_room
from understudy.runtime.streams.streams import StreamTable
from understudy.stores import Address

BOUND = 10_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_room, "MAX_SESSION_BYTES", BOUND)


def message(size: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * size}}


def table_and_session() -> tuple[StreamTable, Address]:
    return StreamTable(asyncio.get_running_loop().time), Address.new("session")


def a_stream(table: StreamTable, address: Address, id: int) -> Exchange:
    exchange = Exchange(id, "tools/call")
    table.name(address, exchange)
    return exchange


def kept(table: StreamTable, address: Address) -> int:
    streams = table._sessions[address]
    assert streams.bytes == sum(exchange.size for exchange in streams.all)
    return streams.bytes


async def test_streams_that_are_left_go_first() -> None:
    table, address = table_and_session()
    left = [a_stream(table, address, id) for id in range(3)]
    for exchange in left:
        exchange.send(message(2000))
        exchange.resolve({})
    written = a_stream(table, address, 9)
    for _ in range(4):
        written.send(message(2000))
    assert kept(table, address) <= BOUND
    assert written.oldest == 1
    assert [table.request(address, exchange.id) is not None for exchange in left].count(False) >= 2
    assert table.request(address, left[0].id) is None, "the oldest"


async def test_then_the_oldest_events_of_the_largest_stream_go_and_no_end() -> None:
    table, address = table_and_session()
    streams = [a_stream(table, address, id) for id in range(4)]
    for size in (100, 200, 1500, 300):
        for exchange in streams:
            exchange.send(message(size))
    for _ in range(20):
        streams[2].send(message(900))
        assert kept(table, address) <= BOUND
    assert streams[2].oldest > 10
    assert all(exchange.last >= exchange.oldest for exchange in streams)
    for exchange in streams:
        exchange.resolve({"x": "y" * 4000})
    for exchange in streams:
        assert table.request(address, exchange.id) is None or exchange.between(exchange.last, exchange.last)


async def test_a_reader_that_has_not_taken_what_goes_loses_its_connection() -> None:
    table, address = table_and_session()
    written = a_stream(table, address, 1)
    generation = written.attach(0)
    for _ in range(20):
        written.send(message(1000))
    assert await written.next(generation) is None
    assert kept(table, address) <= BOUND


async def test_a_tool_waits_for_its_reader_while_the_session_is_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "WRITER_PATIENCE", 5.0)
    table, address = table_and_session()
    written = a_stream(table, address, 1)
    generation = written.attach(0)
    for _ in range(8):
        await written.send_paced(message(1000))
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(written.send_paced(message(1000)))
        await asyncio.sleep(0)
        assert not writing.done()
        assert len(await written.next(generation) or []) == 8
    assert written.last == 9


async def test_another_session_is_not_concerned() -> None:
    table, address = table_and_session()
    other = Address.new("session")
    quiet = a_stream(table, other, 1)
    quiet.send(message(1000))
    quiet.resolve({})
    loud = a_stream(table, address, 1)
    for _ in range(50):
        loud.send(message(1000))
    assert table.request(other, quiet.id) is quiet
    assert quiet.oldest == 1


async def test_sessions_share_what_a_node_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_room, "MAX_NODE_BYTES", 3 * BOUND)
    monkeypatch.setattr(stream_room, "LEAST_SHARE", 2_000)
    table, _ = table_and_session()
    greedy = [(Address.new("session"), id) for id in range(20)]
    streams = [a_stream(table, address, id) for address, id in greedy]
    for _ in range(30):
        for exchange in streams:
            exchange.send(message(500))
    room = table._room
    assert room.taken == sum(kept(table, address) for address, _ in greedy)
    assert room.sessions == len(greedy)
    # The first few took what there was; what all the others have is their share.
    assert room.taken <= 3 * BOUND + 20 * 2_000
    newest = [exchange.between(exchange.last, exchange.last) for exchange in streams]
    assert all(newest), "the newest is kept of each"
    for address, _ in greedy[:15]:
        table.end(address)
    assert room.sessions == 5
    for (address, _), exchange in zip(greedy[15:], streams[15:], strict=True):
        exchange.resolve({})
        table.end(address)
    assert (room.taken, room.sessions) == (0, 0)
