"""The hosts that are compared, each as a bare ASGI app."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server import MCPServer
from mcp.server.streamable_http import EventStore

from ..runtime import Runtime
from .asgi import ASGIApp

__all__ = ["HOST", "sdk_app", "understudy_app"]

HOST = "localhost:8000"


@asynccontextmanager
async def sdk_app(
    server: MCPServer[Any], *, json_response: bool, event_store: EventStore | None = None
) -> AsyncGenerator[ASGIApp]:
    """The SDK's session manager as its own ASGI entry, without the Starlette router that usually stands before it.

    It has its defaults but for two: no check of Host and Origin (so it does less than understudy, which always checks
    them), and no limit of sessions.
    """
    server.streamable_http_app(json_response=json_response, event_store=event_store, host="0.0.0.0", max_sessions=None)
    manager = server.session_manager
    async with manager.run():
        yield manager.handle_request


@asynccontextmanager
async def understudy_app(
    server: MCPServer[Any] | Callable[[Any], MCPServer[Any]], *, store: str = "memory://", **options: Any
) -> AsyncGenerator[ASGIApp]:
    """A `Runtime` with its defaults but for the store and what `options` say."""
    runtime = Runtime(server, store=store, allowed_hosts=[HOST], **options)
    async with runtime:
        yield runtime.app
