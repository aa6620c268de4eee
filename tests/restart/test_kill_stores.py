"""One node that keeps its sessions in a server of its own: kill -9 of either, under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from chaos.store_servers import STORE_SERVERS, StoreServer, store_missing
from restart.load import clients, more
from support import ServerProcess

DEMO = "understudy.runtime.demo:server"


@pytest.fixture(params=STORE_SERVERS)
async def store_server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreServer]:
    if (reason := store_missing(request.param)) is not None:
        pytest.skip(reason)
    server = STORE_SERVERS[request.param][0](tmp_path)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


async def test_nothing_acknowledged_is_lost_when_the_node_or_its_store_is_killed_under_load(
    serve: Callable[..., ServerProcess], store_server: StoreServer
):
    async with (
        serve(DEMO, "--store", store_server.url) as server,
        clients(server.url, handshake=4, modern=4) as sessions,
    ):
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for session in sessions:
                tasks.create_task(session.go_on(stop))
            await more(sessions, 3)
            await server.akill()
            await server.astart()
            await more(sessions, 3)
            store_server.kill()
            await asyncio.sleep(0.3)
            await store_server.start()
            await more(sessions, 3)
            stop.set()
        refused = [text for session in sessions for text in session.refused]
        assert any("503" in text or "unknown" in text for text in refused), "the store was away, and nobody was told"
        for session in sessions:
            session.check(await session.call("count"))
            before = await session.call("count")
            assert await session.call("increment") == before + 1
