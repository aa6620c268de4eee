"""kill -9 and SIGTERM under load: what was acknowledged is there, once, and the same sessions go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from restart.load import HANDSHAKE, Client, clients, more
from support import ServerProcess

DEMO = "understudy.runtime.demo:server"
Serve = Callable[..., ServerProcess]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/sessions.db"


def done(sessions: list[Client]) -> int:
    return sum(len(session.acknowledged) for session in sessions)


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed_under_load(serve: Serve, store: str):
    async with serve(DEMO, "--store", store) as server, clients(server.url, handshake=10, modern=10) as sessions:
        names = [session.session for session in sessions]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for session in sessions:
                tasks.create_task(session.go_on(stop))
            for _ in range(3):
                await more(sessions, 5)
                await server.akill()
                await server.astart()
            await more(sessions, 5)
            stop.set()

        assert server.starts == 4
        for session in sessions:
            session.check(await session.call("count"))
            # Nothing is in flight now, so there is nothing left to doubt.
            before = await session.call("count")
            assert await session.call("increment") == before + 1
            assert session.refused == []
        assert [session.session for session in sessions] == names
        assert sum(session.unanswered for session in sessions) > 0, "the kills met no call in flight"
        assert done(sessions) >= 20 * 20


async def test_without_a_call_in_flight_the_counts_are_exact(serve: Serve, store: str):
    async with serve(DEMO, "--store", store) as server, clients(server.url, handshake=3, modern=3) as sessions:
        for round in (1, 2):
            await asyncio.gather(*(session.call("increment") for session in sessions))
            await asyncio.gather(*(session.call("remember", fact=f"round {round}") for session in sessions))
            await server.akill()
            await server.astart()
            for session in sessions:
                assert await session.call("count") == round
                assert await session.call("recall") == [f"round {number}" for number in range(1, round + 1)]


async def test_a_call_in_flight_when_the_process_is_killed_is_not_run_again(serve: Serve, store: str):
    async with serve(DEMO, "--store", store) as server, clients(server.url, handshake=1, modern=1) as sessions:
        for session in sessions:
            assert await session.call("increment") == 1
        countdowns = (session.call("countdown", steps=50, seconds=10) for session in sessions)
        calls = asyncio.gather(*countdowns, return_exceptions=True)
        await asyncio.sleep(0.3)
        await server.akill()
        for outcome in await calls:
            assert isinstance(outcome, httpx.TransportError)
        await server.astart()
        for session in sessions:
            assert await session.call("count") == 1
            assert await session.call("increment") == 2


async def test_sigterm_under_load_loses_nothing_and_exits_0(serve: Serve, store: str):
    async with serve(DEMO, "--store", store) as server, clients(server.url, handshake=10, modern=10) as sessions:
        for _ in range(2):
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for session in sessions:
                    tasks.create_task(session.go_on(stop))
                await more(sessions, 5)
                server.terminate()
                assert await asyncio.to_thread(server.wait, 20) == 0
                stop.set()
            await server.astart()
            for session in sessions:
                # Whoever got no answer knows from the lack of it that nothing was done: nothing was taken.
                assert await session.call("count") == len(session.acknowledged), (session.refused, session.lost)


async def test_a_call_that_runs_at_sigterm_is_finished_and_answered(serve: Serve, store: str):
    async with serve(DEMO, "--store", store) as server, clients(server.url, handshake=1, modern=1) as sessions:
        calls = asyncio.gather(*(session.call("countdown", steps=4, seconds=1) for session in sessions))
        await asyncio.sleep(0.3)
        server.terminate()
        assert await calls == ["lift-off", "lift-off"]
        assert await asyncio.to_thread(server.wait, 20) == 0


async def test_a_standing_stream_is_closed_at_sigterm(serve: Serve, store: str):
    async with serve(DEMO, "--store", store) as server, clients(server.url, handshake=1, modern=0) as (session,):
        async with httpx.AsyncClient() as http:
            headers = {**session.headers, "accept": "text/event-stream", "mcp-protocol-version": HANDSHAKE}
            async with http.stream("GET", server.url, headers=headers, timeout=20) as stream:
                assert stream.status_code == 200
                server.terminate()
                async for _ in stream.aiter_lines():
                    pass
        assert await asyncio.to_thread(server.wait, 20) == 0
