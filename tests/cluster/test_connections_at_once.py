"""A node of a cluster opens its store and connects to NATS at the same time, and lets go of both in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from edge.server import Stage, make_server
from support.nats import fresh_name
from understudy.runtime import ClusterOptions, Runtime
from understudy.runtime.cluster import cluster_connection
from understudy.stores import MemoryStore, StoreUnavailable, register_scheme
from understudy.stores.nats.connection import connect
from understudy.stores.nats.errors import NatsUnavailable


class Opening:
    """What the store `at-once://` does while it opens, and what was seen."""

    def __init__(self) -> None:
        self.store_began = asyncio.Event()
        self.connected = asyncio.Event()
        self.store_fails = False
        self.store_waits = True
        self.deadline = 5.0
        self.left: list[str] = []
        self.client: Any = None

    async def open_store(self, _: str, __: Any) -> Any:
        self.store_began.set()
        try:
            if self.store_waits:
                await self.connected.wait()
        except asyncio.CancelledError:
            self.left.append("opening")
            raise
        if self.store_fails:
            raise StoreUnavailable("no store today", outcome_unknown=False)
        return Kept(self)

    async def connect(self, *args: Any, **options: Any) -> Any:
        await self.store_began.wait()
        self.client = await connect(*args, **options, deadline=self.deadline)
        self.connected.set()
        return self.client


class Kept(MemoryStore):
    shared = True

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening

    async def aclose(self) -> None:
        client = self._opening.client
        self._opening.left.append("store, after NATS" if client is None or client.is_closed else "store")
        await super().aclose()


_opening: list[Opening] = []


async def _open(rest: str, clock: Any) -> Any:
    return await _opening[-1].open_store(rest, clock)


register_scheme("at-once", _open)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Opening:
    made = Opening()
    _opening[:] = [made]
    monkeypatch.setattr(cluster_connection, "connect", made.connect)
    return made


def node(nats_url: str) -> Runtime:
    return Runtime(
        make_server(Stage()), store="at-once://", cluster=ClusterOptions(fresh_name("once"), nats_url), node_id="node-1"
    )


async def test_neither_waits_for_the_other(opening: Opening, nats_url: str) -> None:
    async with asyncio.timeout(10), node(nats_url) as runtime:
        assert not await runtime.not_ready()
    assert opening.left == ["store, after NATS"]


async def test_a_store_that_cannot_be_opened_is_said_as_it_is_and_leaves_no_connection(
    opening: Opening, nats_url: str
) -> None:
    opening.store_fails = True
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailable, match="no store today"):
            await node(nats_url).__aenter__()
    assert opening.client.is_closed


async def test_nats_that_is_not_there_ends_the_opening_of_the_store(opening: Opening, free_port: int) -> None:
    opening.deadline = 0.3
    async with asyncio.timeout(10):
        with pytest.raises(NatsUnavailable, match="cannot connect to NATS"):
            await node(f"nats://127.0.0.1:{free_port}").__aenter__()
    assert opening.left == ["opening"]


async def test_nats_that_is_not_there_closes_a_store_that_is_open(opening: Opening, free_port: int) -> None:
    opening.store_waits = False
    opening.deadline = 0.3
    async with asyncio.timeout(10):
        with pytest.raises(NatsUnavailable, match="cannot connect to NATS"):
            await node(f"nats://127.0.0.1:{free_port}").__aenter__()
    assert opening.left == ["store, after NATS"]


async def test_a_start_that_is_given_up_leaves_neither(opening: Opening, nats_url: str) -> None:
    opening.connected.set = lambda: None  # type: ignore[method-assign]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(node(nats_url).__aenter__())
        while opening.client is None:
            await asyncio.sleep(0.01)
        starting.cancel()
    assert starting.cancelled()
    assert opening.left == ["opening"]
    assert opening.client.is_closed
