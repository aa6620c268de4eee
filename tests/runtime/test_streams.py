"""What a quiet node keeps of streams that nobody came back to."""

from __future__ import annotations

import asyncio

import pytest
from support.patience import PATIENCE
from understudy.actors import Elsewhere
from understudy.actors.session.exchange import Exchange
from understudy.runtime.streams import left_streams
from understudy.runtime.streams.standing import Standing
from understudy.runtime.streams.streams import StreamTable
from understudy.stores import Address


async def test_a_finished_stream_is_forgotten_in_time_though_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(left_streams, "GRACE", 0.02)
    table = StreamTable(asyncio.get_running_loop().time)
    exchange = Exchange(1, "tools/call")
    table.name(Address.new("session"), exchange)
    exchange.resolve({})
    assert table.stats()["streams_kept"] == 1
    async with asyncio.timeout(PATIENCE):
        while table.stats()["streams_kept"]:
            await asyncio.sleep(0.01)
    assert table.stats()["streams_sessions"] == 0


def a_table() -> tuple[StreamTable, list[Address]]:
    """A table, and the sessions of which it says that nothing is kept."""
    table = StreamTable(asyncio.get_running_loop().time)
    emptied: list[Address] = []
    table.on_empty = emptied.append
    return table, emptied


async def stand(table: StreamTable, address: Address) -> Exchange:
    return (await Standing(table).open(address, None, fresh=True)).exchange


async def test_a_moved_session_takes_its_standalone_stream_along_and_leaves_nothing() -> None:
    table, emptied = a_table()
    address = Address.new("session")
    standalone = await stand(table, address)
    generation = standalone.attach(0)
    finished = Exchange(1, "tools/call")
    table.name(address, finished)
    finished.resolve({})
    table.move(address)
    assert standalone.elsewhere == address
    assert await standalone.next(generation) is None
    assert not table.holds(address)
    assert emptied == [address]
    assert table.stats() == {
        "streams_sessions": 0,
        "streams_bytes": 0,
        "streams_kept": 0,
        "streams_kept_bytes": 0,
        "streams_resumed_total": 0,
    }
    table.left(address, standalone)
    table.move(address)
    assert emptied == [address]


async def test_what_a_turn_still_writes_or_a_client_still_reads_outlives_the_move() -> None:
    table, emptied = a_table()
    address = Address.new("session")
    written, read = Exchange(1, "tools/call"), Exchange(2, "tools/call")
    for exchange in (written, read):
        table.name(address, exchange)
    generation = read.attach(0)
    read.resolve({})
    table.move(address)
    assert [number for number, _ in await read.next(generation) or []] == [1]
    assert table.request(address, written.id) is written
    written.resolve({})
    assert table.holds(address)
    assert emptied == []


async def test_a_stream_whose_request_went_elsewhere_is_not_kept() -> None:
    table, emptied = a_table()
    address = Address.new("session")
    unread, attached = Exchange(1, "tools/call"), Exchange(2, "tools/call")
    for exchange in (unread, attached):
        table.name(address, exchange)
    generation = attached.attach(0)
    unread.fail(Elsewhere(address))
    attached.fail(Elsewhere(address))
    assert table.holds(address), "somebody reads"
    attached.detach(generation)
    table.left(address, attached)
    assert emptied == [address]
    assert table.stats()["streams_kept"] == 0


async def test_the_owner_is_told_when_nothing_is_kept_of_a_session_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_streams, "GRACE", 0.02)
    table, emptied = a_table()
    ended, expired, drained = (Address.new("session") for _ in range(3))
    for address in (ended, expired, drained):
        await stand(table, address)
        assert table.holds(address)
    table.end(ended)
    table.end(ended)
    assert emptied == [ended]
    table.left(expired, await stand(table, expired))
    async with asyncio.timeout(PATIENCE):
        while table.holds(expired):
            await asyncio.sleep(0.01)
    assert emptied == [ended, expired]
    table.close_standalone()
    assert emptied == [ended, expired, drained]
    assert not any(table.holds(address) for address in (ended, expired, drained))


async def test_what_is_published_while_nobody_reads_counts_for_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_streams, "MAX_KEPT_BYTES", 1000)
    table, emptied = a_table()
    addresses = [Address.new("session") for _ in range(3)]
    for address in addresses:
        table.left(address, await stand(table, address))
    said = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 300}}
    for address in addresses:
        assert table.publish(address, said)
    assert emptied == addresses[:1], "bounded: the one that was left first made room"
    assert 0 < table.stats()["streams_kept_bytes"] <= 1000
    for address in addresses[1:]:
        table.end(address)
    assert table.stats()["streams_kept_bytes"] == 0
