"""Factories: each session its own server, and one for each tenant surface where there is no session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from session.servers import ACME, GLOBEX, Log, server_called, until
from session.visitor import RPCError, Visitor, hosted
from understudy.actors.session.servers import Servers
from understudy.runtime import HostingError, Session, TenantContext


async def test_a_factory_makes_each_session_a_server_of_its_own(era):
    made: list[str] = []

    def factory(tenant: TenantContext) -> MCPServer:
        made.append(f"server {len(made)}")
        return server_called(made[-1])

    async with hosted(factory) as host:
        one, other = await host.visit(era), await host.visit(era)
        names = {await one.ask("name_of_server"), await other.ask("name_of_server")}
        assert len(names) == 2
        assert await one.ask("count") == 1
        assert await other.ask("count") == 1


async def test_a_tool_added_in_one_session_is_not_in_another():
    async with hosted(lambda tenant: server_called("growing")) as host:
        one, other = await host.visit(), await host.visit()
        await one.ask("grow")
        assert "grown" in await one.tools()
        assert await one.ask("grown") == "grown"
        assert "grown" not in await other.tools()
        assert "Unknown tool: grown" in await other.failure("grown")


async def test_a_tool_added_to_the_one_server_is_in_every_session():
    async with hosted(server_called("shared")) as host:
        one, other = await host.visit(), await host.visit()
        await one.ask("grow")
        assert await other.ask("grown") == "grown"


async def test_a_factory_may_be_async(era):
    async def factory(tenant: TenantContext) -> MCPServer:
        await asyncio.sleep(0)
        return server_called(f"for {tenant.tenant}")

    async with hosted(factory) as host:
        assert await (await host.visit(era)).ask("name_of_server") == "for anonymous"


@pytest.mark.parametrize(
    ("factory", "logged"),
    [
        (lambda tenant: None, "the server factory returned 'NoneType'; it must return an MCPServer"),
        (lambda tenant: "server", "the server factory returned 'str'"),
        (lambda tenant: {}["password"], "the server factory raised KeyError('password')"),
    ],
    ids=["nothing", "nonsense", "raises"],
)
async def test_a_factory_that_fails_is_an_internal_error_and_the_log_says_why(era, factory, logged, caplog):
    async with hosted(factory) as host:
        with pytest.raises(RPCError) as refused:
            await host.visit(era)
        assert refused.value.code == -32603
        assert refused.value.message == "Internal server error"
        assert host.stats("sessions_live") == 0
    assert logged in caplog.text


async def test_a_factory_that_fails_once_does_not_spoil_the_session():
    tries: list[int] = []

    def factory(tenant: TenantContext) -> MCPServer:
        tries.append(1)
        if len(tries) == 2:
            raise RuntimeError("the database is away")
        return server_called(f"server {len(tries)}")

    async with hosted(factory) as host:
        visitor = await host.visit()
        assert await visitor.ask("count") == 1
        await host.sleep(visitor)
        with pytest.raises(RPCError, match="Internal server error"):
            await visitor.ask("count")
        assert await visitor.ask("count") == 2
        assert await visitor.ask("name_of_server") == "server 3"


async def test_a_call_that_is_cancelled_while_its_server_is_made_never_runs():
    making, gate = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def factory(tenant: TenantContext) -> MCPServer:
        making.set()
        await gate.wait()
        server = MCPServer("slow")

        @server.tool()
        async def run(session: Session) -> str:
            ran.append(session.id)
            return "ran"

        return server

    async with hosted(factory) as host:
        gate.set()
        visitor = await host.visit()
        await host.sleep(visitor)
        gate.clear()
        making.clear()
        call = visitor.call("run")
        await making.wait()
        await visitor.cancel(call)
        gate.set()
        with pytest.raises(RPCError, match="Request cancelled"):
            await call.value()
        assert ran == []
        assert await visitor.ask("run") == "ran"


async def test_a_factory_that_hangs_is_given_up():
    async def factory(tenant: TenantContext) -> Any:
        await asyncio.Event().wait()

    async with Servers(factory, factory_timeout=0.01) as servers:
        with pytest.raises(HostingError, match=r"took longer than 0\.01 s; do slow work in the server's lifespan"):
            await servers.for_session(ACME)
        with pytest.raises(HostingError, match="took longer"):
            await servers.for_surface(ACME)


async def test_a_factorys_own_timeout_is_not_taken_for_ours():
    async def factory(tenant: TenantContext) -> Any:
        raise TimeoutError("the database did not answer")

    async with Servers(factory) as servers:
        with pytest.raises(HostingError, match="the database did not answer"):
            await servers.for_session(ACME)


async def test_a_surface_is_made_once_however_many_ask():
    made: list[TenantContext] = []

    async def factory(tenant: TenantContext) -> MCPServer:
        made.append(tenant)
        await asyncio.sleep(0)
        return server_called("surface")

    async with Servers(factory) as servers:
        hosts = await asyncio.gather(*(servers.for_surface(ACME) for _ in range(5)), servers.for_surface(GLOBEX))
        assert len(set(hosts[:5])) == 1
        assert hosts[5] is not hosts[0]
        assert made == [ACME, GLOBEX]


async def test_after_a_failure_one_of_those_who_wait_for_a_surface_tries_again():
    tries: list[int] = []

    async def factory(tenant: TenantContext) -> MCPServer:
        tries.append(1)
        number = len(tries)
        await asyncio.sleep(0)
        if number == 1:
            raise RuntimeError("the database is away")
        return server_called("surface")

    async with Servers(factory) as servers:
        first, *others = await asyncio.gather(*(servers.for_surface(ACME) for _ in range(4)), return_exceptions=True)
        assert isinstance(first, HostingError)
        assert len(set(others)) == 1
        assert len(tries) == 2


async def test_a_surface_depends_on_what_the_credential_allows():
    made: list[TenantContext] = []

    def factory(tenant: TenantContext) -> MCPServer:
        made.append(tenant)
        return server_called("surface")

    contexts = [
        ACME,
        TenantContext(tenant="acme", principal="eve"),
        TenantContext(tenant="acme", principal="ada", plan="gold"),
        TenantContext(tenant="acme", principal="ada", scopes=frozenset({"write"})),
        GLOBEX,
    ]
    async with Servers(factory) as servers:
        for context in contexts * 2:
            await servers.for_surface(context)
        assert made == contexts


async def test_the_least_used_surface_goes_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("understudy.actors.session.servers.MAX_SURFACES", 2)
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        return server_called("surface", lifespan=log.lifespan(tenant.tenant))

    def tenant(name: str) -> TenantContext:
        return TenantContext(tenant=name, principal="ada")

    async with Servers(factory) as servers:
        for name in ("one", "two", "one", "three"):
            await servers.for_surface(tenant(name))
        await until(lambda: log.left == ["two"])
        await servers.for_surface(tenant("one"))
        assert log.entered == ["one", "two", "three"]


async def test_a_surface_that_goes_keeps_its_lifespan_while_a_call_runs_on_it(monkeypatch):
    monkeypatch.setattr("understudy.actors.session.servers.MAX_SURFACES", 1)
    log = Log()
    entered, gate = asyncio.Event(), asyncio.Event()

    def factory(tenant: TenantContext) -> MCPServer:
        server = MCPServer("surface", lifespan=log.lifespan(tenant.tenant))

        @server.tool()
        async def hold() -> list[str]:
            entered.set()
            await gate.wait()
            return list(log.left)

        return server

    def resolve(request: Any) -> TenantContext:
        return {"ada": ACME, "bob": GLOBEX}[request.headers["authorization"]]

    async with hosted(factory, tenants=resolve) as host:
        call = Visitor(host, "modern", credential="ada").call("hold", stateless=True)
        await entered.wait()
        await Visitor(host, "modern", credential="bob").tools()
        assert log.entered == ["acme", "globex"]
        gate.set()
        assert await call.value() == []
        await until(lambda: log.left == ["acme"])
