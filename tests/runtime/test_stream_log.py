"""`StreamLog`: one stream's misfortune is not another's."""

from __future__ import annotations

from understudy.actors.session.exchange import Exchange
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.streams.log_keeper import LogKeeper
from understudy.runtime.streams.stream_log import StreamLog
from understudy.runtime.streams.streams import StreamTable
from understudy.stores import Address, FaultyStore, MemoryStore


async def test_a_stream_that_was_given_up_in_an_outage_does_not_make_others_leave_without_the_log() -> None:
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock=clock.monotonic), seed=1, sleep=clock.sleep)
    assert store.events is not None
    async with StreamLog(store.events, writer=lambda: "w", clock=clock) as log:
        table = StreamTable(clock.monotonic, log=log, keeper=LogKeeper(log))
        store.fail_next("events.append", "hang")
        address, ended = Address.new("session"), Exchange(1, "tools/call")
        table.name(address, ended, primed=True)
        await settle()
        assert store.hanging == 1
        table.end(address)
        await clock.advance(log.timeout)
        store.fail_next("events.append", "hang")
        exchange = Exchange(1, "tools/call")
        table.name(Address.new("session"), exchange, primed=True)
        await settle()
        assert exchange.logged == -1, "not before the log has it"
        store.release()
        await settle()
        assert exchange.logged == 0
        table.close()
