"""Blocking tools of one tenant leave the others their threads: real threads, in both eras."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import anyio.to_thread
import fastmcp
import pytest
from edge.client import Client, hosting, hosting_modern
from fairness.test_fair_queues import by_name
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resolve import Resolve
from support.patience import PATIENCE
from understudy.runtime import Fairness, current_tenant

FAIRNESS = Fairness(blocking_threads=3, blocking_threads_in_all=16)


class Doors:
    """Behind each a blocking function waits."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()

    def wait(self) -> str:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            assert self.open.wait(PATIENCE)
        finally:
            with self._lock:
                self.inside -= 1
        return current_tenant().tenant

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.inside != count:
                await asyncio.sleep(0.005)


@pytest.fixture
def doors() -> Iterator[Doors]:
    made = Doors()
    yield made
    made.open.set()


def blocking_server(doors: Doors) -> MCPServer:
    server = MCPServer("blocking", version="1", log_level="CRITICAL")

    @server.tool()
    def block() -> str:
        return doors.wait()

    @server.tool(annotations={"readOnlyHint": True})  # type: ignore[arg-type]
    def look() -> str:
        return doors.wait()

    @server.tool()
    def quick() -> str:
        return current_tenant().tenant

    def resolved() -> str:
        return doors.wait()

    async def resolve(text: str) -> str:
        return text

    # Not in its head, where the name of a local function means nothing.
    resolve.__annotations__ = {"text": Annotated[str, Resolve(resolved)], "return": str}
    server.tool()(resolve)

    @server.tool()
    async def by_itself() -> str:
        return await anyio.to_thread.run_sync(doors.wait)

    @server.resource("text://fixed")
    def fixed() -> str:
        return doors.wait()

    @server.resource("text://{name}")
    def named(name: str) -> str:
        return doors.wait()

    @server.prompt()
    def ask() -> str:
        return doors.wait()

    return server


def fastmcp_server(doors: Doors) -> Any:
    server = fastmcp.FastMCP("blocking")

    @server.tool
    def block() -> str:
        return doors.wait()

    @server.tool
    def quick() -> str:
        return current_tenant().tenant

    return server


Era = Callable[..., AbstractAsyncContextManager[Client]]
ERAS = pytest.mark.parametrize("era", [hosting, hosting_modern], ids=["handshake", "modern"])


async def a_client(client: Client, tenant: str) -> Client:
    made = client.twin(authorization=f"Bearer {tenant}")
    if type(made) is Client:
        await made.open()
    return made


async def clients(client: Client, tenant: str, count: int) -> list[Client]:
    return [await a_client(client, tenant) for _ in range(count)]


@ERAS
@pytest.mark.parametrize("make", [blocking_server, fastmcp_server])
async def test_a_tenant_that_holds_all_its_threads_leaves_another_its_own(
    era: Era, make: Callable[[Doors], Any], doors: Doors
) -> None:
    async with era(make(doors), tenants=by_name, fairness=FAIRNESS) as client:
        held = [each.begin_tool("block") for each in await clients(client, "loud", 10)]
        await doors.until(3)
        quiet = await a_client(client, "quiet")
        assert await quiet.tool("quick") == "quiet"
        assert not any(call.complete for call in held)
        stats = client.runtime.stats()
        assert (stats["blocking_threads"], stats["blocking_waiting"]) == (3, 7)
        doors.open.set()
        assert {(await call.answered()).value for call in held} == {"loud"}
        assert doors.most == 3


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "look", "arguments": {}}),
        ("tools/call", {"name": "resolve", "arguments": {}}),
        ("tools/call", {"name": "by_itself", "arguments": {}}),
        ("resources/read", {"uri": "text://fixed"}),
        ("resources/read", {"uri": "text://other"}),
        ("prompts/get", {"name": "ask"}),
    ],
    ids=lambda value: str(value)[:48],
)
async def test_whatever_runs_in_threads_is_counted(method: str, params: dict[str, Any], doors: Doors) -> None:
    async with hosting(blocking_server(doors), tenants=by_name, fairness=FAIRNESS) as client:
        held = [each.begin(method, params) for each in await clients(client, "loud", 6)]
        await doors.until(3)
        assert await (await a_client(client, "quiet")).tool("quick") == "quiet"
        doors.open.set()
        assert [(await call.answered()).status for call in held] == [200] * 6
        assert doors.most == 3


async def test_a_cancelled_call_is_over_at_once_and_its_thread_counts_until_it_ends(doors: Doors) -> None:
    gc.collect()
    gc.disable()
    try:
        async with hosting(blocking_server(doors), tenants=by_name, fairness=FAIRNESS) as client:
            loud = await clients(client, "loud", 4)
            held = [each.begin_tool("block", id=77) for each in loud[:3]]
            await doors.until(3)
            for each in loud[:3]:
                await each.notify("notifications/cancelled", {"requestId": 77})
            for call in held:
                assert (await call.answered()).failure["message"]
            stats = client.runtime.stats()
            assert (stats["blocking_threads"], stats["blocking_threads_running_on"]) == (3, 3)
            late = loud[3].begin_tool("quick")
            await asyncio.sleep(0.05)
            assert not late.complete
            # The session of a call that was cancelled is free, its tenant's threads are not.
            assert await (await a_client(client, "quiet")).tool("quick") == "quiet"
            doors.open.set()
            assert (await late.answered()).value == "loud"
            async with asyncio.timeout(PATIENCE):
                while client.runtime.stats()["blocking_threads"]:
                    await asyncio.sleep(0.005)
            assert client.runtime.stats()["blocking_threads_running_on"] == 0
    finally:
        gc.enable()


async def test_a_modern_client_that_hangs_up_does_not_gain_a_thread(doors: Doors) -> None:
    gc.collect()
    gc.disable()
    try:
        async with hosting_modern(blocking_server(doors), tenants=by_name, fairness=FAIRNESS) as client:
            loud = await a_client(client, "loud")
            held = [loud.begin_tool("block") for _ in range(3)]
            await doors.until(3)
            for call in held:
                call.disconnect()
            async with asyncio.timeout(PATIENCE):
                while client.runtime.stats()["blocking_threads_running_on"] != 3:
                    await asyncio.sleep(0.005)
            late = loud.begin_tool("quick")
            await asyncio.sleep(0.05)
            assert not late.complete
            doors.open.set()
            assert (await late.answered()).value == "loud"
    finally:
        gc.enable()


async def test_a_tool_that_raises_gives_its_thread_back() -> None:
    server = MCPServer("raising", version="1", log_level="CRITICAL")

    @server.tool()
    def fail() -> str:
        raise ValueError("no")

    async with hosting(server, tenants=by_name, fairness=FAIRNESS) as client:
        loud = await a_client(client, "loud")
        for _ in range(5):
            assert (await loud.begin_tool("fail").answered()).result["isError"]
        assert client.runtime.stats()["blocking_threads"] == 0


async def test_threads_of_the_program_around_it_are_its_own_and_so_is_its_limiter_afterwards(doors: Doors) -> None:
    before = anyio.to_thread.current_default_thread_limiter()
    async with hosting(blocking_server(doors), tenants=by_name, fairness=FAIRNESS) as client:
        within = anyio.to_thread.current_default_thread_limiter()
        assert within is not before
        assert within.total_tokens == before.total_tokens
        async with hosting(blocking_server(doors), tenants=by_name, fairness=FAIRNESS):
            assert anyio.to_thread.current_default_thread_limiter() is within
        assert await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()
        assert within.borrowed_tokens == 0
        assert client.runtime.stats()["blocking_threads"] == 0
        within.total_tokens = 41
    assert anyio.to_thread.current_default_thread_limiter() is before
    assert before.total_tokens == 41


async def test_without_tenants_the_limiter_is_let_be() -> None:
    before = anyio.to_thread.current_default_thread_limiter()
    async with hosting(blocking_server(Doors())):
        assert anyio.to_thread.current_default_thread_limiter() is before
