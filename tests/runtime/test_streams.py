"""What a quiet node keeps of streams that nobody came back to."""

from __future__ import annotations

import asyncio

import pytest
from understudy.actors.session.exchange import Exchange
from understudy.runtime import streams
from understudy.runtime.streams import StreamTable
from understudy.stores import Address


async def test_a_finished_stream_is_forgotten_in_time_though_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "GRACE", 0.02)
    table = StreamTable(asyncio.get_running_loop().time)
    exchange = Exchange(1, "tools/call")
    table.name(Address.new("session"), exchange)
    exchange.resolve({})
    assert table.stats()["streams_kept"] == 1
    async with asyncio.timeout(5):
        while table.stats()["streams_kept"]:
            await asyncio.sleep(0.01)
    assert table.stats()["streams_sessions"] == 0
