"""`KVDirectory` and the buckets: what others have written there, and when it goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.nats import fresh_name
from understudy.actors.packing import pack
from understudy.runtime.cluster.buckets import Buckets
from understudy.runtime.cluster.directory import EntryChanged
from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.kv_directory import KVDirectory
from understudy.runtime.cluster.names import Names, directory_key
from understudy.runtime.cluster.node_news import pack_news, unpack_news
from understudy.runtime.cluster.peers import NodeNews
from understudy.stores import Address
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.settings import NatsSettings

A = Address("session", "a")


class World:
    """One cluster's buckets."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.names = Names(fresh_name("kv"))

    def buckets(self, lease: float = 3.0, ttl: float = 3600.0) -> Buckets:
        return Buckets(self.context, self.names, lease=lease, ttl=ttl, replicas=1)


@pytest.fixture
async def world(nats_url: str) -> AsyncIterator[World]:
    client = await connect(NatsSettings.from_url(nats_url), name="test")
    yield World(await jetstream(client))
    await close(client)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        pack("node.1"),
        pack([1, "no dot", 3]),
        pack([1, "node.1.>", 3]),
        pack([1, "a node.1", 3]),
        pack([1, "node.1", -3]),
        pack([2, "node.1", 3]),
    ],
)
async def test_an_entry_that_cannot_be_read_names_nobody_and_can_be_replaced(world: World, value: bytes) -> None:
    """clear-refusal: whoever wrote it, the session behind it can be had."""
    bucket = await world.buckets().directory()
    revision = await bucket.put(directory_key(A), value)
    directory = KVDirectory(bucket, world.context, world.names.directory_bucket)
    assert await directory.look_up(A) == Entry("", 0, revision)
    await directory.write(A, Entry("node.1", 1, revision))
    found = await directory.look_up(A)
    assert found is not None
    assert found.incarnation == "node.1"


async def test_what_sleeps_or_has_ended_is_forgotten_in_time_and_only_under_its_revision(world: World) -> None:
    """bounded: the directory grows with what is awake, not with all that ever was."""
    directory = KVDirectory(await world.buckets().directory(), world.context, world.names.directory_bucket)
    stream = f"KV_{world.names.directory_bucket}"

    async def time_to_live() -> str | None:
        last = await world.context.get_last_msg(stream, f"$KV.{world.names.directory_bucket}.{directory_key(A)}")
        return (last.headers or {}).get("Nats-TTL")

    revision = await directory.write(A, Entry("node.1", 1, 0))
    assert await time_to_live() is None
    with pytest.raises(EntryChanged):
        await directory.write(A, Entry("", 1, revision - 1))
    asleep = await directory.write(A, Entry("", 1, revision))
    assert await directory.look_up(A) == Entry("", 1, asleep)
    assert await time_to_live() == "3600"
    with pytest.raises(EntryChanged):
        await directory.remove(A, revision)
    await directory.remove(A, asleep)
    assert await directory.look_up(A) is None
    assert await time_to_live() == "60"
    await directory.write(A, Entry("node.2", 2, 0))
    found = await directory.look_up(A)
    assert found is not None
    assert found.incarnation == "node.2"


@pytest.mark.parametrize("incarnation", ["", "node", "a node.1", "node.1.>", "."])
def test_the_news_of_nobody_are_dropped(incarnation: str) -> None:
    assert unpack_news(pack_news(NodeNews(incarnation, 3.0))) is None


async def test_longer_leases_than_the_first_node_had_are_kept_as_long_as_they_need(world: World) -> None:
    """A bucket outlives its cluster's settings: made for short leases, it loses long ones before they are renewed."""
    await world.buckets(lease=3.0).nodes()
    leases = await world.buckets(lease=120.0).nodes()
    assert (await leases.status()).ttl == 360.0
    await leases.create("node", b"lease")
    again = await world.buckets(lease=3.0).nodes()
    assert (await again.status()).ttl == 360.0, "others may still need it"
    assert (await again.get("node")).value == b"lease"


async def test_entries_are_kept_as_long_as_sessions_may_live(world: World) -> None:
    await world.buckets(ttl=3600.0).directory()
    assert (await (await world.buckets(ttl=86400.0).directory()).status()).ttl == 172800.0
