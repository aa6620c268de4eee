"""A node that stops in order costs no call: neither one that it has taken, nor one that it has not run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cluster.household import LEASE, Member
from edge.call import Connections
from edge.fleet import Shared
from edge.server import Stage, make_server
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import ClusterOptions, Runtime
from understudy.runtime.link.nats_wire import NatsWire
from understudy.stores import Address


class Two:
    """Two nodes of one cluster, each of which can stop by itself."""

    def __init__(self, nats_url: str) -> None:
        cluster, store = fresh_name("stop"), Shared()
        self.stages = [Stage(), Stage()]
        self.runtimes = [
            Runtime(
                make_server(stage),
                store=store,
                node_id=f"node-{number}",
                cluster=ClusterOptions(cluster, nats_url, lease=LEASE),
            )
            for number, stage in enumerate(self.stages, 1)
        ]
        self.members: list[Member] = []
        self._stopped: set[Runtime] = set()

    async def stop(self, number: int) -> None:
        self._stopped.add(self.runtimes[number])
        await self.runtimes[number].__aexit__(None, None, None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[Member]]:
        for runtime in self.runtimes:
            await runtime.__aenter__()
        try:
            async with Connections(self.runtimes[0].app) as here, Connections(self.runtimes[1].app) as there:
                yield [
                    Member(runtime, stage, connections)
                    for runtime, stage, connections in zip(self.runtimes, self.stages, (here, there), strict=True)
                ]
        finally:
            for runtime in self.runtimes:
                if runtime not in self._stopped:
                    await runtime.__aexit__(None, None, None)


async def test_an_edge_answers_what_it_has_taken_before_it_leaves(nats_url: str) -> None:
    """Though its HTTP server may know nothing of a request that it accepted in the moment of its stop."""
    two = Two(nats_url)
    async with asyncio.timeout(PATIENCE), two.running() as (owner, edge), TaskOwner() as tasks:
        client = owner.client()
        await client.open()
        held = edge.same(client).begin_tool("hold")
        await owner.stage.began.wait()
        stopping = tasks.spawn(two.stop(1))
        try:
            while not edge.runtime.draining:
                await asyncio.sleep(0)
            await asyncio.sleep(0.2)
            assert not stopping.done()
            assert not held.complete
        finally:
            owner.stage.go_on.set()
        assert (await held.answered()).value == 1
        await stopping


async def test_an_owner_that_stops_is_not_taken_for_crashed(
    nats_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever still has a call for it finds nobody there, and takes the session without a stroke."""
    listens_no_more, go_on = asyncio.Event(), asyncio.Event()
    drain = NatsWire.drain

    async def drain_slowly(self: NatsWire) -> None:
        await drain(self)
        listens_no_more.set()
        await go_on.wait()

    two = Two(nats_url)
    async with asyncio.timeout(PATIENCE), two.running() as (owner, other), TaskOwner() as tasks:
        client = owner.client()
        await client.open()
        elsewhere = other.same(client)
        assert await elsewhere.tool("increment") == 1
        monkeypatch.setattr(NatsWire, "drain", drain_slowly)
        was = owner.runtime.cluster
        here = other.runtime.cluster
        assert was is not None
        assert here is not None
        address = Address("session", client.session or "")
        hint = here.ownership.hint(address)
        stopping = tasks.spawn(two.stop(0))
        try:
            await listens_no_more.wait()
            assert hint is not None
            assert hint.incarnation == was.ownership.me
            # As if its hand-off had not been heard of.
            here.ownership.peers.get("node-1").gone = False  # type: ignore[union-attr]
            caplog.set_level(logging.INFO)
            assert await elsewhere.tool("increment") == 2
            assert here.ownership.peers.is_over(was.ownership.me)
        finally:
            go_on.set()
        await stopping
        assert "struck" not in caplog.text
        assert "lease lost" not in caplog.text
        assert here.stats()["cluster_peers"] == 0


async def test_a_node_that_has_given_notice_owns_nothing_and_takes_nothing(nats_url: str) -> None:
    """one-writer: nobody strikes its lease before he takes what was its."""
    two = Two(nats_url)
    async with asyncio.timeout(PATIENCE), two.running() as (leaving, other):
        client = leaving.client()
        await client.open()
        assert await client.tool("increment") == 1
        cluster, there = leaving.runtime.cluster, other.runtime.cluster
        assert cluster is not None
        assert there is not None
        me = cluster.ownership.me
        await cluster.leave()
        assert not cluster.ownership.addresses
        assert not cluster.ownership.may_run(0.0)
        while not there.ownership.peers.is_over(me):
            await asyncio.sleep(0.01)
        assert await other.same(client).tool("increment") == 2
