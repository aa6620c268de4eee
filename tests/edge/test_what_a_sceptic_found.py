"""Faults that somebody found who tried to break a server by hand."""

from __future__ import annotations

import asyncio

import pytest
from edge.client import LATEST, hosting, hosting_modern
from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.runtime import Session, TenantContext
from understudy.runtime.edge import edge, sse
from understudy.stores import FaultyStore, MemoryStore

LARGE = 9 * 2**20


def make_server() -> MCPServer:
    server = MCPServer("nasty")

    @server.tool()
    async def large(ctx: Context) -> str:
        await ctx.report_progress(0, 1)
        return "x" * LARGE

    @server.tool()
    async def echo(text: str) -> str:
        return text

    @server.tool()
    async def increment(session: Session) -> int:
        session.state["n"] = session.state.get("n", 0) + 1
        return session.state["n"]

    return server


@pytest.mark.parametrize("revision", ["2025-03-26", LATEST])
async def test_a_result_over_the_streams_bound_arrives_after_a_notification(revision: str) -> None:
    async with hosting(make_server()) as client:
        await client.open(revision)
        call = await client.begin_tool("large", token="t").answered()
        assert call.kind == "text/event-stream"
        assert len(call.reply["result"]["content"][0]["text"]) == LARGE


async def test_so_it_does_in_the_modern_era() -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.begin_tool("large", token="t").answered()
        assert len(call.reply["result"]["content"][0]["text"]) == LARGE


async def test_calls_that_waited_for_a_lost_actor_run_on_its_successor() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store) as client:
        await client.open()
        store.fail_next("save", "lose", times=3)
        calls = [client.begin_tool("increment") for _ in range(10)]
        answers = [await call.answered() for call in calls]
        # By its status where it is answered in time, on a busy machine in its stream.
        assert answers[0].failure["data"] == {"outcome": "unknown"}
        # The first took effect, though nobody could know; each of the others ran once, after it.
        assert [call.value for call in answers[1:]] == list(range(2, 11))


async def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "RESOLVER_TIMEOUT", 0.02)

    async def hang(_: Request) -> TenantContext:
        await asyncio.Event().wait()
        raise AssertionError

    async with hosting(make_server(), tenants=hang) as client:
        call = await client.send(body=b"{}")
        assert call.status == 503
        assert int(call.header("retry-after") or 0) >= 1


async def test_a_standing_stream_ends_with_the_lifetime_of_its_session() -> None:
    async with hosting(make_server(), session_ttl=0.3, idle_after=0.2) as client:
        await client.open()
        stream = await client.start("GET").started()
        assert stream.status == 200
        async with asyncio.timeout(PATIENCE):
            await stream.answered()


async def test_a_connection_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "READER_PATIENCE", 0.05)
    async with hosting(make_server()) as client:
        await client.open()
        call = client.begin_tool("large", token="t", reads=False)
        async with asyncio.timeout(PATIENCE):
            while not call.returned:
                await asyncio.sleep(0.01)
        assert not call.complete
        assert call.error is None
