"""Many sessions go from store to store; what finds them afterwards sees what is wrong.

`make chaos ARGS="switching --from redis --to postgresql"` does it with 100,000.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.crowd import Crowd
from chaos.load import HANDSHAKE, Call, Fate
from chaos.route import go_through
from chaos.store_servers import store_missing
from support.nats import nats_missing
from understudy.actors.session.snapshot import SessionSnapshot
from understudy.stores import Address, Record, SessionStore, open_store

LIKE = Record(
    Address.new("session"), "t", 1, 1, "n", 0.0, 0.0, 9e9, SessionSnapshot("handshake", "t", "p", HANDSHAKE).pack()
)


class Stores:
    def __init__(self, directory: Path) -> None:
        self.urls = [f"sqlite:///{directory}/{name}.db" for name in ("former", "next")]

    async def __aenter__(self) -> tuple[SessionStore, SessionStore]:
        self.opened = [await open_store(url) for url in self.urls]
        return self.opened[0], self.opened[1]

    async def __aexit__(self, *_: object) -> None:
        for store in self.opened:
            await store.aclose()


async def test_what_is_lost_or_left_or_twice_or_old_or_strange_is_found(tmp_path: Path) -> None:
    stores = Stores(tmp_path)
    crowd = Crowd()
    async with stores as (former, next):
        await crowd.fill(next, [(HANDSHAKE, LIKE)], 20)
        assert (await crowd.find(*stores.urls)).faults == []
        lost, twice, strange, other, *_ = crowd.numbers
        [old] = crowd.choose(1)
        assert old.session in (lost, twice, strange, other)
        old = crowd.called.pop(old.session)
        old.session = list(crowd.numbers)[10]
        crowd.called[old.session] = old
        old.calls.append(Call("increment", "n", 0.0, 1.0, Fate.ACKNOWLEDGED, 1))
        await next.delete(Address("session", lost))
        record = await next.load(Address("session", twice))
        assert record is not None
        await former.create(record.address, tenant="t", owner="n", snapshot=record.snapshot, ttl=1000)
        # The state of another.
        record = await next.load(Address("session", other))
        claimed = await next.claim(Address("session", strange), owner="n")
        assert record is not None
        await next.save(claimed.address, epoch=2, version=2, snapshot=record.snapshot, ttl=1000)
    found = await crowd.find(*stores.urls)
    assert (found.there, found.missing, found.left, found.twice) == (19, [lost], [twice], [twice])
    assert (found.older, set(found.strange)) == ([old.session], {strange})
    assert len(found.faults) == 5


@pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")
async def test_many_sessions_go_from_store_to_store_while_some_are_called(tmp_path: Path) -> None:
    if (reason := store_missing("redis")) is not None:
        pytest.skip(reason)
    numbers, faults = await go_through(tmp_path, ("redis", "sqlite"), sessions=300)
    print(numbers)
    assert faults == []
    [moved] = numbers.values()
    assert moved["there"] == moved["compared"] == 300
    assert moved["calls"] > 50
