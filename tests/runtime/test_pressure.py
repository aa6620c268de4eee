"""Memory pressure sends the least recently used sessions to sleep."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from mcp.server.mcpserver import MCPServer
from support.patience import PATIENCE
from understudy.runtime import ConfigurationError, Runtime
from understudy.runtime.pressure import memory_pressure

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def test_pressure_begins_above_the_limit() -> None:
    assert memory_pressure(1)()
    assert not memory_pressure(2**50)()


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_memory"):
        Runtime(MCPServer("test"), max_memory=0)


async def test_a_process_over_its_limit_keeps_no_idle_session_in_memory() -> None:
    # The node looks four times in idle_after, so pressure acts long before idleness would.
    runtime = Runtime(MCPServer("test"), max_memory=1, idle_after=4.0)
    transport = httpx.ASGITransport(runtime.app)
    async with runtime, httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        headers = {"accept": "application/json, text/event-stream"}
        assert (await http.post("/mcp", json=INITIALIZE, headers=headers)).status_code == 200
        async with asyncio.timeout(PATIENCE):
            while not runtime.stats()["sessions_passivated"]:
                await asyncio.sleep(0.01)
        assert runtime.stats()["sessions_live"] == 0
