"""Asking a resolver without a server, and a server in both eras."""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, hosting, hosting_modern, initialize_params
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from understudy.runtime import Session, TenantContext, Unauthenticated, current_tenant


def request(credential: str | bytes | None, header: str = "authorization") -> Request:
    raw = credential.encode("latin-1") if isinstance(credential, str) else credential
    lines = [(b"host", b"localhost"), (b"accept", b"*/*")]
    if raw is not None:
        lines.append((header.encode(), b"Bearer " + raw if header == "authorization" else raw))
    return Request({"type": "http", "method": "POST", "path": "/mcp", "headers": lines})


async def ask(resolver: Any, credential: str | bytes | None, **options: Any) -> TenantContext:
    told = resolver(request(credential, **options))
    return await told if inspect.isawaitable(told) else told


async def refusal(resolver: Any, credential: str | bytes | None, **options: Any) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await ask(resolver, credential, **options)
    return caught.value


def tenants_server() -> MCPServer:
    server = MCPServer("tenants", version="1", log_level="CRITICAL")

    @server.tool()
    async def who(session: Session) -> str:
        assert current_tenant() is session.tenant
        return f"{session.tenant.principal} of {session.tenant.tenant}"

    @server.tool()
    async def who_without_session() -> str:
        return f"{current_tenant().principal} of {current_tenant().tenant}"

    return server


def in_era(era: str, **options: Any) -> AbstractAsyncContextManager[Client | ModernClient]:
    return (hosting if era == "handshake" else hosting_modern)(tenants_server(), **options)


async def knock(client: Client | ModernClient, credential: str | None) -> HTTPCall:
    """The first request that a client of its era makes."""
    headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
    if isinstance(client, ModernClient):
        return await client.ask("tools/list", headers=headers)
    return await client.ask("initialize", initialize_params(), headers=headers)
