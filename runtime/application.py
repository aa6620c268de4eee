"""The ASGI application: the MCP endpoint with the pages for operators beside it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from ..stores import StoreError
from .errors import ConfigurationError, NotStarted
from .wire.http import JSON_TYPE, Receive, Scope, Send, answer

if TYPE_CHECKING:
    from .runtime import Runtime

__all__ = ["Application"]

logger = logging.getLogger(__name__)

_TEXT = (b"content-type", b"text/plain; charset=utf-8")


def _last_answer(send: Send) -> Send:
    """`send`, with the word that this connection ends: a client that used it again would find it cut."""

    async def send_last(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_last


class Application:
    """Routes by path. Plain ASGI, to be served as it is or mounted in a Starlette or FastAPI application."""

    def __init__(self, runtime: Runtime, path: str) -> None:
        if not path.startswith("/"):
            raise ConfigurationError(f"path is {path!r}; it must start with a slash")
        self._runtime = runtime
        self._path = path
        self._alias = path.rstrip("/") + "/"
        self._under_way = 0
        self._quiet = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path != self._path:
                root: str = scope.get("root_path", "")
                if root and path.startswith(root):
                    path = path[len(root) :] or "/"
            if path == self._path or path == self._alias:
                edge = self._runtime.edge
                if edge is None:
                    raise NotStarted
                if self._runtime.draining and scope.get("http_version") == "1.1":
                    send = _last_answer(send)
                self._under_way += 1
                try:
                    await edge(scope, receive, send)
                finally:
                    self._under_way -= 1
                    if not self._under_way:
                        self._quiet.set()
            else:
                await self._page(path, scope["method"], send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def finish(self) -> None:
        """Until no request is under way at the MCP endpoint. Bound it from outside."""
        while self._under_way:
            self._quiet.clear()
            await self._quiet.wait()

    async def _page(self, path: str, method: str, send: Send) -> None:
        resource = self._runtime.protected_resource
        if resource is not None and path == resource.metadata_path:
            await resource.serve(method, send)
            return
        if path not in ("/healthz", "/readyz", "/metrics"):
            await answer(send, 404, b"not found; the MCP endpoint is " + self._path.encode() + b"\n", headers=(_TEXT,))
        elif method not in ("GET", "HEAD"):
            await answer(send, 405, b"method not allowed\n", headers=(_TEXT, (b"allow", b"GET, HEAD")))
        elif path == "/healthz":
            await answer(send, 200, b"alive\n", headers=(_TEXT,))
        elif path == "/metrics":
            body, content_type = self._runtime.metrics()
            await answer(send, 200, body, headers=((b"content-type", content_type.encode()),))
        else:
            reasons = await self._runtime.not_ready()
            verdict = {"ready": not reasons, "node": self._runtime.node_id, "reasons": reasons}
            body = json.dumps(verdict).encode() + b"\n"
            await answer(send, 503 if reasons else 200, body, headers=(JSON_TYPE,))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                # Whoever started the runtime already also stops it.
                if self._runtime.edge is None:
                    await stack.enter_async_context(self._runtime)
            except Exception as error:
                if not isinstance(error, StoreError):
                    logger.exception("start-up failed")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
