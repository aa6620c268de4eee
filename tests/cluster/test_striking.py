"""`Striking`: a lease that is taken out of the bucket, and what stays there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.nats import fresh_name
from understudy.runtime.cluster.buckets import Buckets
from understudy.runtime.cluster.directory import DirectoryUnavailable
from understudy.runtime.cluster.names import Names
from understudy.runtime.cluster.nats_api import keys_of
from understudy.runtime.cluster.node_news import pack_news, unpack_news
from understudy.runtime.cluster.ownership import Ownership
from understudy.runtime.cluster.peers import NodeNews
from understudy.runtime.cluster.striking import Striking
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.settings import NatsSettings

HUNG = NodeNews("hung.1", 3.0, serial=1)
RETURNED = NodeNews("hung.2", 3.0, serial=2)


class House:
    """A node that has heard of another, `hung`, and the bucket of leases. `deletions`: how often one was tried."""

    def __init__(self, bucket: Any, client: Any) -> None:
        self.bucket = bucket
        self.client = client
        self.deletions = 0
        self.renewals: list[NodeNews] = []
        self.ownership = Ownership("n.1", lease=3.0)
        self.ownership.heard(HUNG, 0.0)
        self.striking = Striking(lambda: self, self.ownership)  # type: ignore[arg-type,return-value]

    async def renew(self, news: NodeNews) -> None:
        await self.bucket.put("hung", pack_news(news))

    async def present(self) -> str | None:
        found = [await self.bucket.get(key) for key in await keys_of(self.bucket)]
        assert len(found) <= 1
        news = unpack_news(found[0].value) if found else None
        return news.incarnation if news is not None else None

    # The bucket as `Striking` sees it: somebody may renew a lease between its look and its deletion.

    async def get(self, key: str, **options: Any) -> Any:
        found = await self.bucket.get(key, **options)
        if self.renewals:
            await self.renew(self.renewals.pop())
        return found

    async def delete(self, key: str, **options: Any) -> None:
        self.deletions += 1
        await self.bucket.delete(key, **options)


@pytest.fixture
async def house(nats_url: str) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        client = await connect(NatsSettings.from_url(nats_url), name="striking")
        stack.push_async_callback(close, client)
        buckets = Buckets(await jetstream(client, timeout=5.0), Names(fresh_name()), lease=3.0, ttl=60.0, replicas=1)
        made = House(await buckets.nodes(), client)
        await made.renew(HUNG)
        yield made


async def test_who_is_struck_has_no_lease_and_is_known_never_to_renew(house: House) -> None:
    assert not house.ownership.peers.is_over("hung.1")
    await house.striking.strike("hung.1")
    assert await house.present() is None
    assert house.ownership.peers.is_over("hung.1")


async def test_once_for_each_incarnation_is_enough(house: House) -> None:
    await house.striking.strike("hung.1")
    await house.striking.strike("hung.1")
    assert house.deletions == 1


async def test_a_node_that_has_come_back_keeps_its_new_lease(house: House) -> None:
    await house.renew(RETURNED)
    await house.striking.strike("hung.1")
    assert house.deletions == 0
    assert await house.present() == "hung.2"
    assert house.ownership.peers.is_over("hung.1")


async def test_a_lease_that_is_not_there_need_not_be_taken(house: House) -> None:
    await house.bucket.delete("hung")
    await house.striking.strike("hung.1")
    assert house.deletions == 0
    assert house.ownership.peers.is_over("hung.1")


async def test_one_that_renews_at_that_moment_is_struck_all_the_same(house: House) -> None:
    house.renewals = [HUNG, HUNG]
    await house.striking.strike("hung.1")
    assert house.deletions == 3
    assert await house.present() is None


async def test_one_that_comes_back_at_that_moment_is_not(house: House) -> None:
    house.renewals = [RETURNED]
    await house.striking.strike("hung.1")
    assert house.deletions == 1
    assert await house.present() == "hung.2"


async def test_nobody_is_taken_for_struck_while_nats_is_away(house: House) -> None:
    await close(house.client)
    with pytest.raises(DirectoryUnavailable, match=r"the lease of hung\.1 cannot be struck"):
        await house.striking.strike("hung.1")
    assert not house.ownership.peers.is_over("hung.1")
