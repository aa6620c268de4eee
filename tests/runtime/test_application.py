"""What the application does beside routing."""

from __future__ import annotations

from typing import Any

import httpx
from mcp.server.mcpserver import MCPServer
from understudy.runtime import Runtime


async def status_and_headers(runtime: Runtime, version: str) -> tuple[int, dict[bytes, bytes]]:
    """The answer to a POST that names no session, over HTTP `version`."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "http_version": version}
    await runtime.app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


async def test_a_draining_node_says_that_its_connections_end() -> None:
    runtime = Runtime(MCPServer("test"))
    async with runtime:
        assert b"connection" not in (await status_and_headers(runtime, "1.1"))[1]
        await runtime.drain()
        assert (await status_and_headers(runtime, "1.1"))[1][b"connection"] == b"close"
        # HTTP/2 has no such header: its server says goodbye by itself.
        assert b"connection" not in (await status_and_headers(runtime, "2"))[1]


async def test_a_runtime_can_be_started_again() -> None:
    runtime = Runtime(MCPServer("test"))
    for _ in range(2):
        async with (
            runtime,
            httpx.AsyncClient(transport=httpx.ASGITransport(runtime.app), base_url="http://localhost") as http,
        ):
            assert (await http.get("/readyz")).status_code == 200
