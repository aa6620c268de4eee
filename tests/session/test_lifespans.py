"""Lifespans of servers: when they begin and end, and in which task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from session.servers import ACME, Log, server_called, until
from session.visitor import RPCError, hosted
from support.patience import PATIENCE
from understudy.actors.session.servers import Servers
from understudy.runtime import HostingError, Session, TenantContext


async def test_the_lifespan_of_a_shared_server_is_entered_once(era):
    log = Log()
    async with hosted(server_called("shared", lifespan=log.lifespan("shared"))) as host:
        for _ in range(2):
            visitor = await host.visit(era)
            assert await visitor.ask("lifespan_of_server") == "shared"
            await host.sleep(visitor)
            assert await visitor.ask("lifespan_of_server") == "shared"
        assert (log.entered, log.left) == (["shared"], [])
    assert log.left == ["shared"]
    assert all(entered is left for entered, left in log.tasks)


async def test_a_factory_made_server_has_its_lifespan_while_its_session_is_in_memory():
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        name = f"life {len(log.entered) + 1}"
        return server_called(name, lifespan=log.lifespan(name))

    async with hosted(factory) as host:
        one, other = await host.visit(), await host.visit()
        assert await one.ask("lifespan_of_server") == "life 1"
        assert await other.ask("lifespan_of_server") == "life 2"
        await host.sleep(one)
        await until(lambda: log.left == ["life 1"])
        assert await one.ask("lifespan_of_server") == "life 3"
        assert await one.end() == 200
        await until(lambda: log.left == ["life 1", "life 3"])
    assert log.left == ["life 1", "life 3", "life 2"]
    assert all(entered is left for entered, left in log.tasks)


async def test_a_lifespan_that_fails_is_an_internal_error_and_the_log_says_why(era, caplog):
    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        raise TimeoutError("the database did not answer")
        yield {}

    async with hosted(lambda tenant: server_called("failing", lifespan=lifespan)) as host:
        with pytest.raises(RPCError, match="-32603: Internal server error"):
            await host.visit(era)
    assert "the lifespan of server 'failing' failed at its start: TimeoutError('the database did not answer')" in (
        caplog.text
    )


async def test_the_lifespan_of_a_shared_server_that_fails_keeps_the_runtime_from_starting():
    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        raise TimeoutError("the database did not answer")
        yield {}

    with pytest.raises(TimeoutError, match="the database did not answer"):
        async with hosted(server_called("failing", lifespan=lifespan)):
            pass


async def test_a_lifespan_that_does_not_begin_is_given_up():
    cancelled = asyncio.Event()

    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        yield {}

    async with Servers(lambda tenant: server_called("slow", lifespan=lifespan), lifespan_timeout=0.01) as servers:
        with pytest.raises(HostingError, match=r"not started within 0\.01 s"):
            await servers.for_session(ACME)
        await cancelled.wait()


async def test_a_lifespan_that_nobody_waits_for_any_more_ends():
    entered, left = asyncio.Event(), asyncio.Event()
    go = asyncio.Event()

    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        entered.set()
        try:
            await go.wait()
            yield {}
        finally:
            left.set()

    async with Servers(lambda tenant: server_called("slow", lifespan=lifespan)) as servers:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await servers.for_session(ACME)
        assert entered.is_set()
        async with asyncio.timeout(PATIENCE):
            await left.wait()


async def test_a_lifespan_that_does_not_end_does_not_keep_the_node_from_stopping(monkeypatch, caplog):
    monkeypatch.setattr("understudy.actors.session.servers.STOP_TIMEOUT", 0.01)

    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        yield {}
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE):
        async with Servers(server_called("stubborn", lifespan=lifespan)):
            pass
    assert "the lifespan of server 'stubborn' did not end" in caplog.text


async def test_a_lifespan_that_fails_at_its_end_is_logged(caplog):
    @asynccontextmanager
    async def lifespan(server: Any) -> AsyncIterator[dict[str, str]]:
        yield {}
        raise RuntimeError("could not say goodbye")

    async with hosted(server_called("rude", lifespan=lifespan)) as host:
        assert await (await host.visit()).ask("count") == 1
    assert "the lifespan of server 'rude' failed" in caplog.text
    assert "could not say goodbye" in caplog.text


async def test_a_live_object_that_hangs_when_it_is_closed_does_not_keep_the_lifespan():
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        server = server_called("with browser", lifespan=log.lifespan("browser"))

        @server.tool()
        async def browse(session: Session) -> str:
            async def hang(_: object) -> None:
                await asyncio.Event().wait()

            await session.live.get("browser", object, close=hang)
            return "browsing"

        return server

    async with hosted(factory) as host:
        visitor = await host.visit()
        await visitor.ask("browse")
        host.registry._host.limits = replace(host.registry._host.limits, close_timeout=0.05)
        await host.sleep(visitor)
        await until(lambda: log.left == ["browser"])
