"""No function that a program gives us, however it ends for one tenant, takes the others' node away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from edge.client import Client, ModernClient, hosting, hosting_modern
from edge.test_session_ids import by_bearer
from mcp.server.mcpserver import MCPServer
from mcp_types import NotificationParams
from support.patience import PATIENCE
from understudy.runtime import Limits, Session, TenantContext, current_tenant


class Bad(BaseException):
    """As programs use to end themselves."""


ENDS: Mapping[str, Callable[[], BaseException]] = {
    "its own end": Bad,
    "a closed generator": GeneratorExit,
    "another task's cancellation": asyncio.CancelledError,
}
HOOKS = ["tenants", "async tenants", "tools_for", "limits", "audit", "secrets", "factory", "lifespan"]
INSIDE = ["handler", "closer", "listener"]


def fails_for_evil(tenant: TenantContext, end: Callable[[], BaseException], otherwise: Any) -> Any:
    if tenant.tenant == "evil":
        raise end()
    return otherwise


def make_server(end: Callable[[], BaseException], where: str) -> MCPServer:
    server = MCPServer("hooks", log_level="CRITICAL")

    @server.tool()
    async def call() -> str:
        if where == "handler":
            fails_for_evil(current_tenant(), end, None)
        if where == "secrets":
            await current_tenant().secrets.reveal("TOKEN")
        return "answered"

    @server.tool()
    async def hold(session: Session) -> str:
        tenant = session.tenant

        class Held:
            async def aclose(self) -> None:
                fails_for_evil(tenant, end, None)

        if where == "closer":
            await session.live.get("held", Held)
        return "held"

    async def hear(*_: Any) -> None:
        fails_for_evil(current_tenant(), end, None)

    if where == "listener":
        server._lowlevel_server.add_notification_handler("notifications/roots/list_changed", NotificationParams, hear)
    return server


def failing(
    era: str, where: str, end: Callable[[], BaseException]
) -> AbstractAsyncContextManager[Client | ModernClient]:
    def fail(tenant: TenantContext, otherwise: Any) -> Any:
        return fails_for_evil(tenant, end, otherwise)

    async def fail_later(request: Any) -> TenantContext:
        return fail(by_bearer(request), by_bearer(request))

    def made(tenant: TenantContext) -> MCPServer:
        @asynccontextmanager
        async def lifespan(_: object) -> AsyncGenerator[dict[str, Any]]:
            yield fail(tenant, {}) if where == "lifespan" else {}

        if where == "factory":
            fail(tenant, None)
        server = MCPServer("made", lifespan=lifespan, log_level="CRITICAL")

        @server.tool()
        async def call() -> str:
            return "answered"

        return server

    options: dict[str, Any] = {"tenants": by_bearer}
    if where == "tenants":
        options["tenants"] = lambda request: fail(by_bearer(request), by_bearer(request))
    elif where == "async tenants":
        options["tenants"] = fail_later
    elif where == "tools_for":
        options["tools_for"] = lambda tenant: fail(tenant, {"*"})
    elif where == "limits":
        options["limits"] = lambda tenant: fail(tenant, Limits(calls_in_flight=9, sessions=9, result_bytes=9999))
    elif where == "audit":
        options["audit"] = lambda entry: fail(TenantContext(entry.tenant or "nobody", "x"), None)
    elif where == "secrets":
        options["secrets"] = lambda tenant: fail(tenant, {"TOKEN": "a token"})
    server = made if where in ("factory", "lifespan") else make_server(end, where)
    return (hosting if era == "handshake" else hosting_modern)(server, **options)


async def use(client: Client | ModernClient) -> None:
    """Whatever a client can make run; the answers do not matter, that there are some does."""
    if not isinstance(client, ModernClient):
        client.revision = None
        opened = await client.ask("initialize", OPENING)
        client.session = opened.header("mcp-session-id") or "none"
        client.revision = "2025-11-25"
        await client.notify("notifications/roots/list_changed")
    await client.begin_tool("call").answered()
    await client.begin_tool("hold").answered()
    if not isinstance(client, ModernClient):
        await client.send("DELETE")


OPENING: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", [*HOOKS, *INSIDE])
@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_others_are_answered_however_it_ends(era: str, where: str, end: str) -> None:
    async with failing(era, where, ENDS[end]) as client:
        good, evil = client.twin(authorization="Bearer good/ann"), client.twin(authorization="Bearer evil/eve")
        if era == "handshake":
            await good.open()
        for _ in range(2):
            async with asyncio.timeout(PATIENCE):
                await use(evil)
        async with asyncio.timeout(PATIENCE):
            assert await good.tool("call") == "answered"
            if era == "handshake":
                await good.open()
                assert await good.tool("call") == "answered"


async def test_hooks_of_changes_are_called_on_after_one_that_was_cancelled() -> None:
    heard: list[str | None] = []

    async def waits_for_a_task_that_was_cancelled(tenant: str | None) -> None:
        raise asyncio.CancelledError

    async with hosting(make_server(Bad, ""), tenants=by_bearer) as client:
        client.runtime.on_tenant_changed(waits_for_a_task_that_was_cancelled)
        client.runtime.on_tenant_changed(heard.append)
        await client.runtime.tenant_changed("acme")
        await client.runtime.tenant_changed("evil")
    assert heard == ["acme", "evil"]


async def test_an_audit_trail_goes_on_after_a_sink_that_was_cancelled() -> None:
    heard: list[str] = []

    async def sink(entry: Any) -> None:
        heard.append(entry.event)
        if len(heard) == 1:
            raise asyncio.CancelledError

    async with hosting(make_server(Bad, ""), tenants=by_bearer, audit=sink) as client:
        ann = client.twin(authorization="Bearer acme/ann")
        await ann.open()
        await ann.tool("call")
    assert heard[:2] == ["opened", "called"]
