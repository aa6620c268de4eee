"""`ClusterConnection`: knows whether NATS is there, and undoes as much as it has done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.runtime import ClusterOptions
from understudy.runtime.cluster.cluster_connection import ClusterConnection
from understudy.runtime.cluster.commons import ClusterCommons
from understudy.runtime.cluster.names import Names
from understudy.runtime.cluster.nats_api import listening
from understudy.runtime.commands.nats_server import NatsServer
from understudy.stores.nats.errors import NatsUnavailable


class Told:
    """Whether the connection was lost, or found again."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.found = asyncio.Event()

    def connection(self, nats: str, name: str) -> ClusterConnection:
        return ClusterConnection(
            ClusterOptions(name, nats=nats),
            Names(name),
            "n",
            session_ttl=60.0,
            lost=self.lost.set,
            found=self.found.set,
        )


async def test_it_is_told_when_nats_goes_and_when_it_is_back(nats_servers: Callable[..., NatsServer]) -> None:
    told = Told()
    async with nats_servers() as server, asyncio.timeout(PATIENCE):
        connection = told.connection(server.url, fresh_name())
        assert not connection.alive
        try:
            await connection.open(ClusterCommons())
            assert connection.alive
            assert not told.lost.is_set()
            server.kill()
            await told.lost.wait()
            assert not connection.alive
            assert not told.found.is_set()
            await server.restart()
            await told.found.wait()
            assert connection.alive
        finally:
            await connection.aclose()


async def test_all_nodes_have_the_same_settings_and_keys(nats_url: str) -> None:
    name = fresh_name()
    one, other = (Told().connection(nats_url, name) for _ in range(2))
    keys = ClusterCommons(), ClusterCommons()
    try:
        await one.open(keys[0])
        await other.open(keys[1])
        assert keys[0].keys.fingerprints
        assert keys[0].keys.fingerprints == keys[1].keys.fingerprints
        revision = await one.settings.put("greeting", b"hello")
        entry = await other.settings.get("greeting")
        assert (entry.value, entry.revision) == (b"hello", revision)
    finally:
        await one.aclose()
        await other.aclose()


async def test_what_was_opened_before_it_failed_is_closed(nats_servers: Callable[..., NatsServer]) -> None:
    class Fails(ClusterCommons):
        async def learn_keys(self, settings: object) -> None:
            raise TimeoutError

    async with nats_servers() as server:
        connection = Told().connection(server.url, fresh_name())
        with pytest.raises(NatsUnavailable, match="reading what all nodes agree on"):
            await connection.open(Fails())
        assert not connection.client.is_closed
        await connection.aclose()
        assert connection.client.is_closed
        await connection.aclose()


async def test_one_listens_for_as_long_as_the_block_lasts(nats_url: str) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: object) -> None:
        heard.put_nowait(message.data)  # type: ignore[attr-defined]

    connection = Told().connection(nats_url, fresh_name())
    try:
        await connection.open(ClusterCommons())
        subject = fresh_name("subject")
        async with listening(connection.client, subject, hear), asyncio.timeout(PATIENCE):
            await connection.client.publish(subject, b"one")
            assert await heard.get() == b"one"
        await connection.client.publish(subject, b"two")
        await connection.client.flush()
        assert heard.empty()
    finally:
        await connection.aclose()


async def test_that_it_cannot_be_ended_is_nobodys_error(nats_servers: Callable[..., NatsServer]) -> None:
    async def hear(message: object) -> None: ...

    async with nats_servers() as server:
        connection = Told().connection(server.url, fresh_name())
        await connection.open(ClusterCommons())
        async with listening(connection.client, "subject", hear):
            await connection.aclose()
        assert connection.client.is_closed
