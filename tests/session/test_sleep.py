"""Out of memory and back: a session that sleeps loses nothing that its client can see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from session.stagehand import Stagehand
from session.visitor import RPCError, Visitor, hosted
from support.patience import PATIENCE
from understudy.runtime import Session
from understudy.runtime.demo import server as demo


async def _gone(host: Any, visitor: Visitor) -> None:
    async with asyncio.timeout(PATIENCE):
        while visitor.address in host.registry:
            await asyncio.sleep(0.01)


@pytest.fixture
def stagehand() -> Stagehand:
    return Stagehand()


async def test_a_session_that_is_not_used_leaves_memory_and_comes_back(era):
    async with hosted(demo, idle_after=0.05) as host:
        visitor = await host.visit(era)
        assert await visitor.ask("increment") == 1
        await visitor.ask("remember", fact="tea at four")
        await _gone(host, visitor)
        assert host.stats("sessions_live") == 0
        assert await visitor.ask("increment") == 2
        assert await visitor.ask("recall") == ["tea at four"]
        assert (await visitor.ask("whoami"))["session"] == visitor.session


async def test_a_session_may_sleep_often(era):
    async with hosted(demo) as host:
        visitor = await host.visit(era)
        for number in range(1, 21):
            assert await visitor.ask("increment") == number
            await host.sleep(visitor)
        assert host.stats("sessions_rehydrated") >= 19


@pytest.mark.parametrize("tool", ["hold", "hold_reading"])
async def test_a_session_with_a_running_call_is_never_put_to_sleep(stagehand, era, tool):
    async with hosted(stagehand.server(), idle_after=0.02, max_sessions=1) as host:
        visitor = await host.visit(era)
        call = visitor.call(tool, gate="a")
        await stagehand.gate("a").entered.wait()
        assert not await host.registry.passivate(visitor.address)
        await asyncio.sleep(0.1)
        assert visitor.address in host.registry
        # Nor does it make way for another.
        with pytest.raises(RPCError, match="takes no more sessions"):
            await host.visit(era)
        stagehand.gate("a").opened.set()
        assert await call.value() in (0, 100)
        await _gone(host, visitor)


async def test_the_least_recently_used_makes_way(era):
    async with hosted(demo, max_sessions=2) as host:
        one, two = await host.visit(era), await host.visit(era)
        await one.ask("increment")
        await two.ask("increment")
        await one.ask("increment")
        three = await host.visit(era)
        await three.ask("increment")
        assert one.address in host.registry
        await _gone(host, two)
        assert await two.ask("increment") == 2
        await _gone(host, one)
        assert await one.ask("increment") == 3


async def test_many_sessions_take_turns_in_little_memory(era):
    async with hosted(demo, max_sessions=5) as host:
        visitors = [await host.visit(era) for _ in range(20)]
        for number in range(1, 4):
            for visitor in visitors:
                assert await visitor.ask("increment") == number
        assert host.stats("sessions_live") <= 5


async def test_calls_that_meet_a_session_on_its_way_out_are_served(era):
    async with hosted(demo) as host:
        visitor = await host.visit(era)
        for number in range(1, 6):
            going = asyncio.gather(host.registry.passivate(visitor.address), visitor.ask("increment"))
            assert (await going)[1] == number


async def test_many_calls_wake_a_session_once(era):
    async with hosted(demo) as host:
        visitor = await host.visit(era)
        await host.sleep(visitor)
        before = host.stats("sessions_rehydrated")
        counts = await asyncio.gather(*(visitor.ask("increment") for _ in range(50)))
        assert sorted(counts) == list(range(1, 51))
        assert host.stats("sessions_rehydrated") == before + 1


async def test_the_standalone_stream_does_not_keep_a_session_awake():
    async with hosted(demo, idle_after=0.05) as host:
        visitor = await host.visit()
        stream = await visitor.listen()
        await _gone(host, visitor)
        assert not stream.ended.is_set()


async def test_a_session_that_expired_is_unknown(era):
    async with hosted(demo, session_ttl=0.2) as host:
        visitor = await host.visit(era)
        assert await visitor.ask("increment") == 1
        await asyncio.sleep(0.3)
        await _gone(host, visitor)
        call = visitor.call("increment")
        message = await call.outcome()
        if era == "handshake":
            assert call.status == 404
        else:
            assert "Unknown session" in message["result"]["content"][0]["text"]


async def test_an_ended_session_leaves_nothing(era):
    async with hosted(demo) as host:
        visitor = await host.visit(era)
        await visitor.ask("increment")
        if era == "handshake":
            assert await visitor.end() == 200
        else:
            await visitor.ask("close_session")
        assert await host.runtime._node.store.load(visitor.address) is None
        assert visitor.address not in host.registry


async def test_the_end_of_a_session_cancels_what_runs_and_tells_what_waits(stagehand):
    async with hosted(stagehand.server()) as host:
        visitor = await host.visit()
        running = visitor.call("hold", gate="a")
        await stagehand.gate("a").entered.wait()
        waiting = visitor.call("increment")
        await visitor.tools()
        assert await visitor.end() == 200
        with pytest.raises(RPCError, match="Request cancelled"):
            await running.value()
        with pytest.raises(RPCError, match="Session not found"):
            await waiting.value()


async def test_a_server_of_ones_own_may_be_rebuilt_differently_each_time():
    versions = iter(range(1, 10))

    def make(tenant: Any) -> MCPServer:
        version = next(versions)
        server = MCPServer("changing")

        @server.tool(name=f"tool_of_version_{version}")
        async def tool(session: Session) -> int:
            session.state["uses"] = session.state.get("uses", 0) + 1
            return session.state["uses"]

        return server

    async with hosted(make) as host:
        visitor = await host.visit()
        assert list(await visitor.tools()) == ["tool_of_version_1"]
        assert await visitor.ask("tool_of_version_1") == 1
        await host.sleep(visitor)
        assert list(await visitor.tools()) == ["tool_of_version_2"]
        assert await visitor.ask("tool_of_version_2") == 2
