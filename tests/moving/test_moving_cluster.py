"""A cluster moves to another store under load: three nodes in one process, real stores, three rolling restarts.

`python -m chaos switching` does it with processes, kills and the command, at full size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from edge.call import Connections
from edge.client import Client
from edge.server import Stage, make_server
from support.nats import fresh_name
from support.patience import PATIENCE
from support.redis import fresh_prefix
from understudy.runtime import ClusterOptions, Runtime
from understudy.runtime.cluster.errors import StoreNotShared
from understudy.runtime.store_commands.emptying import Emptying
from understudy.stores import Address, SessionStore, open_store

LAME_DUCK = 0.5


class Node:
    """One that can be started again with other stores."""

    def __init__(self, name: str, cluster: str, nats_url: str) -> None:
        self.name = name
        # Long, as a machine that is busy with something else may hold a node up for a while.
        self._cluster = ClusterOptions(cluster, nats=nats_url, lease=15.0)
        self._stack = AsyncExitStack()

    async def start(self, **stores: str) -> None:
        runtime = Runtime(make_server(Stage()), node_id=self.name, cluster=self._cluster, idle_after=0.3, **stores)  # pyright: ignore
        async with AsyncExitStack() as stack:
            self.runtime = await stack.enter_async_context(runtime)
            self.connections = await stack.enter_async_context(Connections(runtime.app))
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        await self.runtime.drain()
        # As `serve` does: other nodes have calls on their way here.
        await asyncio.sleep(LAME_DUCK)
        await self._stack.aclose()


class Load:
    """Clients that count up without a pause, at whatever nodes are up, and what they were told."""

    def __init__(self, nodes: list[Node]) -> None:
        self.up = list(nodes)
        self.random = Random(1)
        self.told: dict[str, int] = {}
        self.clients: list[tuple[str, Client]] = []
        self.in_doubt: dict[str, int] = {}
        self.doubts = 0
        self.calls = 0
        self.stop = False
        self._running: dict[str, int] = {}

    async def open(self, number: int) -> None:
        for _ in range(number):
            client = Client(self.random.choice(self.up).connections)
            await client.open()
            assert client.session is not None
            self.clients.append((client.session, client))
            self.told[client.session] = 0

    async def call(self, session: str, client: Client) -> None:
        node = self.random.choice(self.up)
        self._running[node.name] = self._running.get(node.name, 0) + 1
        client._connections = node.connections
        answer = await client.begin_tool("increment").answered()
        self._running[node.name] -= 1
        try:
            value = answer.value
        except AssertionError as error:
            # A node that leaves may take a call along that another has sent on to it; then the answer says so.
            if "'code': -32000" not in str(error):
                raise
            self.doubts += 1
            self.in_doubt[session] = self.in_doubt.get(session, 0) + 1
            return
        doubt = self.in_doubt.pop(session, 0)
        assert self.told[session] + 1 <= value <= self.told[session] + 1 + doubt, (value, self.told[session], doubt)
        self.told[session] = value
        self.calls += 1

    async def work(self, numbers: count[int], workers: int) -> None:
        own = next(numbers)
        while not self.stop:
            mine = self.clients[own::workers]
            for session, client in mine:
                await self.call(session, client)
                await asyncio.sleep(0.02)

    async def without(self, node: Node) -> None:
        """No new calls to `node`; what runs there is answered."""
        self.up.remove(node)
        while self._running.get(node.name):
            await asyncio.sleep(0.005)


@pytest.fixture(params=["nats", "redis"])
def new_store(request: pytest.FixtureRequest) -> str:
    if request.param == "nats":
        return f"{request.getfixturevalue('nats_url')}/{fresh_name()}"
    return f"{request.getfixturevalue('redis_url')}?prefix={fresh_prefix()}"


@pytest.fixture
async def nodes(nats_url: str, tmp_path: Path) -> AsyncIterator[list[Node]]:
    cluster = fresh_name("moving")
    made = [Node(f"node-{number}", cluster, nats_url) for number in range(1, 4)]
    yield made
    for node in made:
        await node._stack.aclose()


async def test_acknowledged_calls_count_once_through_three_rolling_restarts(
    nodes: list[Node], new_store: str, tmp_path: Path
) -> None:
    old_store = f"sqlite:///{tmp_path}/old.db"
    for node in nodes:
        await node.start(store=old_store)
    load = Load(nodes)
    await load.open(60)
    asleep = dict(load.clients[40:])
    for session, client in asleep.items():
        await load.call(session, client)
    del load.clients[40:]

    async def restart(each: Callable[[], Any] = lambda: asyncio.sleep(0), **stores: str) -> None:
        for node in nodes:
            await load.without(node)
            await node.stop()
            await node.start(**stores)
            load.up.append(node)
            await load.open(1)
            await asyncio.sleep(0.1)
            await each()

    async def move() -> None:
        async with AsyncExitStack() as stack:
            former, next = [await open_store(url) for url in (old_store, new_store)]
            stack.push_async_callback(former.aclose)
            stack.push_async_callback(next.aclose)
            emptying = Emptying(former, next, rate=500)
            while (await emptying.one_pass()).looked:
                pass
            await emptying.tidy()

    async def too_early() -> None:
        early = Node("early", nodes[0]._cluster.name, nodes[0]._cluster.nats)  # pyright: ignore
        with pytest.raises(StoreNotShared):
            await early.start(store=new_store)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        numbers = count()
        for _ in range(4):
            tasks.create_task(load.work(numbers, 4))
        await restart(store=old_store, next_store=new_store)
        await too_early()
        await restart(store=new_store, former_store=old_store)
        await too_early()
        await move()
        for node in nodes:
            await node.runtime._node.store.look()  # pyright: ignore
            node.runtime.cluster.membership.renew_soon()  # pyright: ignore
        await asyncio.sleep(0.3)
        await restart(store=new_store)
        load.stop = True

    assert load.calls > 200
    assert load.doubts < load.calls / 20
    for session, client in asleep.items():
        await load.call(session, client)
    former, next = [await open_store(url) for url in (old_store, new_store)]
    assert await sessions(former) == set()
    assert await sessions(next) == set(load.told)
    await former.aclose()
    await next.aclose()


async def sessions(store: SessionStore) -> set[str]:
    page = await store.list(limit=1000)
    assert page.cursor is None
    return {Address.parse(str(info.address)).id for info in page.records}
