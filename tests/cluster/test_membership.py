"""`Membership`: the lease, where NATS is slow and news come at a bad moment."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from nats.errors import ConnectionReconnectingError
from nats.js.errors import KeyWrongLastSequenceError
from support.patience import PATIENCE
from understudy.actors.clock import SystemClock
from understudy.actors.task_owner import TaskOwner
from understudy.runtime.cluster import striking
from understudy.runtime.cluster.directory import DirectoryUnavailable
from understudy.runtime.cluster.membership import Membership
from understudy.runtime.cluster.names import Names
from understudy.runtime.cluster.node_news import pack_news, unpack_news
from understudy.runtime.cluster.ownership import Ownership
from understudy.runtime.cluster.peers import NodeNews
from understudy.stores import Address
from understudy.stores.nats.errors import NatsUnavailable


class Nats:
    """A connection and the bucket of leases."""

    def __init__(self) -> None:
        self.reads = 0
        self.writes = 0
        self.hangs = False
        self.broken = False
        self.on_write: Any = None

    async def subscribe(self, subject: str, cb: Any) -> Any:
        return self

    async def keys(self) -> list[str]:
        return []

    async def get(self, key: str, **options: Any) -> Any:
        self.reads += 1
        if self.hangs:
            await asyncio.Event().wait()
        raise ConnectionReconnectingError if self.broken else AssertionError

    async def update(self, key: str, value: bytes, **options: Any) -> int:
        self.writes += 1
        if self.on_write is not None:
            self.on_write()
        return self.writes


class Events:
    async def renamed(self, incarnation: str) -> None:
        pass

    def lapsed(self, held: Any) -> None:
        pass


def member(nats: Nats, ownership: Ownership) -> Membership:
    async def bucket() -> Any:
        return nats

    made = Membership(
        cast("Any", nats),
        bucket,
        Names("test"),
        ownership,
        node="n",
        news=lambda incarnation, serial: NodeNews(incarnation, ownership.lease, serial=serial),
        events=cast("Any", Events()),
        clock=SystemClock(),
    )
    made._bucket = cast("Any", nats)
    return made


async def test_all_that_strike_a_lease_wait_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request ends in bounded time, however many others want the same."""
    monkeypatch.setattr(striking, "STRIKE_TIMEOUT", 0.05)
    nats = Nats()
    nats.hangs = True
    struck = member(nats, Ownership("n.1", lease=3.0))
    outcomes = await asyncio.gather(*(struck.strike("m.1") for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DirectoryUnavailable}
    # Not twenty; under load the deadline of the first may be over a little before those of the others.
    assert nats.reads < 10


async def test_what_changes_during_a_renewal_is_told_at_once() -> None:
    nats, ownership = Nats(), Ownership("n.0", lease=3600.0)
    renewing = member(nats, ownership)
    told = asyncio.Event()

    def written() -> None:
        if nats.writes == 1:
            renewing.renew_soon()
        else:
            told.set()

    nats.on_write = written
    async with TaskOwner() as tasks, asyncio.timeout(PATIENCE):
        forever = tasks.spawn(renewing.renew_forever())
        try:
            await told.wait()
        finally:
            forever.cancel()


async def test_a_connection_that_breaks_while_joining_is_named() -> None:
    nats = Nats()
    nats.broken = True
    with pytest.raises(NatsUnavailable, match="an earlier process of this node"):
        await member(nats, Ownership("n.0", lease=3.0)).join(lambda: None)


class Lease:
    """The bucket of leases, with one in it."""

    def __init__(self, revision: int, news: NodeNews) -> None:
        self.revision = revision
        self.value: bytes | None = pack_news(news)

    async def get(self, key: str, **options: Any) -> Any:
        return self

    async def update(self, key: str, value: bytes, *, last: int | None, **options: Any) -> int:
        if last != self.revision:
            raise KeyWrongLastSequenceError
        self.value = value
        self.revision += 1
        return self.revision


class Lapses(Events):
    def __init__(self) -> None:
        self.held: list[Address] = []

    def lapsed(self, held: list[Address]) -> None:
        self.held += held


@pytest.mark.parametrize("revision", [7, 8])
async def test_a_node_that_gives_notice_lets_go_first_though_a_renewal_of_its_was_cut_short(revision: int) -> None:
    """one-writer: who hears of it takes what was held here, and strikes nothing."""
    ownership, events = Ownership("n.1", lease=3600.0), Lapses()
    ownership.begin("n.1", SystemClock().monotonic())
    lease = Lease(revision, NodeNews("n.1", 3600.0))
    leaving = member(cast("Any", lease), ownership)
    leaving._events = cast("Any", events)
    leaving._has_lease, leaving._revision = True, 7
    ownership.opened(address := Address("session", "a"))
    await leaving.give_notice()
    assert events.held == [address]
    assert not ownership.may_run(SystemClock().monotonic())
    told = unpack_news(lease.value or b"")
    assert told is not None
    assert (told.incarnation, told.leaving) == ("n.1", True)
    assert leaving._revision == lease.revision == revision + 1


async def test_a_node_that_gives_notice_leaves_the_lease_of_another_as_it_is() -> None:
    ownership = Ownership("n.1", lease=3600.0)
    ownership.begin("n.1", SystemClock().monotonic())
    lease = Lease(8, NodeNews("n.2", 3600.0))
    before = lease.value
    leaving = member(cast("Any", lease), ownership)
    leaving._has_lease, leaving._revision = True, 7
    await leaving.give_notice()
    assert (lease.revision, lease.value) == (8, before)
