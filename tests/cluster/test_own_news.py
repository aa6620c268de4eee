"""`OwnNews`: what a node tells is as it is at that moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.counting import CounterKind, a_registry, a_store, opened
from understudy.actors.testing import ManualClock
from understudy.runtime import ClusterOptions
from understudy.runtime.cluster.commons import ClusterCommons
from understudy.runtime.cluster.errors import ClusterError, StoreNotShared
from understudy.runtime.cluster.own_news import OwnNews
from understudy.runtime.cluster.ownership import Ownership
from understudy.runtime.cluster.peers import NodeNews, Peer
from understudy.stores import MemoryStore, SessionStore, SQLiteStore
from understudy.stores.moving import FollowingStore

KEYS = [b"one key of 32 bytes or more, for tests", b"another of 32 bytes or more, for tests"]


class House:
    def __init__(self, store: SessionStore | None = None, keys: list[bytes] = KEYS) -> None:
        self.clock = ManualClock()
        self.registry = a_registry(self.clock, a_store(self.clock), CounterKind())
        self.ownership = Ownership("n.1", lease=5.0)
        self.commons = ClusterCommons(keys)
        self.options = ClusterOptions("shop", url="http://here", lease=5.0)
        self.own_news = OwnNews(
            self.options, self.ownership, self.commons, store or MemoryStore(), self.registry, capacity=7
        )

    def news(self) -> NodeNews:
        return self.own_news.tell("n.1", 3)


def peer(news: NodeNews) -> Peer:
    return Peer(news, until=1e9)


async def test_it_says_how_much_room_there_is_and_whether_sessions_are_taken() -> None:
    house = House()
    async with house.registry:
        before = house.news()
        assert (before.sessions, before.capacity, before.draining) == (0, 7, False)
        await opened(house.registry, 1)
        house.ownership.draining = True
        after = house.news()
        assert (after.sessions, after.capacity, after.draining) == (1, 7, True)


def test_it_bears_the_incarnation_that_is_asked_for_and_the_options() -> None:
    news = House().news()
    assert (news.node, news.incarnation, news.serial) == ("n", "n.1", 3)
    assert (news.lease, news.url, news.versions) == (5.0, "http://here", ClusterOptions("shop").versions)


async def test_it_says_where_sessions_are_and_where_they_go(tmp_path: Path) -> None:
    former = await SQLiteStore.open(tmp_path / "former.db")
    next = await SQLiteStore.open(tmp_path / "next.db")
    store = FollowingStore(former, next)
    try:
        news = House(store).news()
        assert (news.store, news.next_store, news.former_store) == (former.identity, next.identity, "")
        assert House(next).news().next_store == ""
    finally:
        await store.aclose()


async def test_a_node_that_keeps_sessions_elsewhere_is_no_fellow(tmp_path: Path) -> None:
    mine, theirs = House(MemoryStore()), await SQLiteStore.open(tmp_path / "theirs.db")
    try:
        with pytest.raises(StoreNotShared):
            mine.own_news.check([peer(House(theirs).news())])
    finally:
        await theirs.aclose()


def test_a_node_with_other_keys_is_no_fellow_and_one_that_knows_them_is() -> None:
    mine = House(store := MemoryStore())
    mine.own_news.check([peer(House(store, KEYS).news())])
    with pytest.raises(ClusterError, match="has other keys"):
        mine.own_news.check([peer(House(store, KEYS).news()), peer(House(store, KEYS[1:]).news())])
