"""Clients that hang up at any moment, over each HTTP server: nothing is logged as an error, nothing is left behind."""

from __future__ import annotations

import asyncio
import logging

import pytest
from edge.client import MODERN, ModernClient, envelope, hosting
from edge.server import Stage, make_server
from edge.sockets import carried, dialled, head
from support.patience import PATIENCE
from understudy.runtime.commands.http_servers import HTTP_SERVERS

pytestmark = pytest.mark.parametrize("server", list(HTTP_SERVERS))


@pytest.mark.parametrize("moment", ["before the answer", "in the stream", "in a flood"])
async def test_a_client_of_the_handshake_era_hangs_up(
    server: str, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        params = {"name": "report", "arguments": {"before": 2, "after": 5000}, "_meta": {"progressToken": "t"}}
        if moment == "before the answer":
            params = {"name": "hold", "arguments": {}}
        body = client.message("tools/call", params)
        async with carried(client, server) as port:
            async with dialled(port) as line:
                await line.say(head(client, f"Content-Length: {len(body)}") + body)
                await stage.began.wait()
                if moment != "before the answer":
                    await line.reader.readuntil(b"progress")
                if moment == "in a flood":
                    stage.go_on.set()
                    await line.reader.readuntil(b'"progress":100}')
                line.hang_up()
            stage.go_on.set()
            assert await client.tool("increment") == 1
            assert (stage.finished, stage.cancelled) == (1, 0), "which is no cancellation"
            async with asyncio.timeout(PATIENCE):
                while client.runtime.stats()["streams_kept"] < (moment != "before the answer"):
                    await asyncio.sleep(0.01)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("moment", ["before the answer", "in the stream", "in a flood"])
async def test_a_client_of_the_modern_era_hangs_up(server: str, moment: str, caplog: pytest.LogCaptureFixture) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        modern = ModernClient(client._connections)
        tool = "hold_stateless" if moment == "before the answer" else "report"
        arguments = {"before": 2, "after": 5000} if tool == "report" else {}
        if moment == "in a flood":
            arguments["before"] = 100_000
        meta = {**envelope(), "progressToken": "t"}
        body = modern.message("tools/call", {"name": tool, "arguments": arguments, "_meta": meta})
        lines = [f"MCP-Protocol-Version: {MODERN}", "Mcp-Method: tools/call", f"Mcp-Name: {tool}"]
        async with carried(client, server) as port:
            async with dialled(port) as line:
                await line.say(head(client, f"Content-Length: {len(body)}", *lines) + body)
                if tool == "report":
                    await line.reader.readuntil(b'"progress":100}' if moment == "in a flood" else b"progress")
                else:
                    await stage.began.wait()
                line.hang_up()
            async with asyncio.timeout(PATIENCE):
                while client.runtime.stats()["stateless_calls_running"]:
                    await asyncio.sleep(0.01)
            assert stage.finished == 0
            assert stage.running == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_client_that_listens_hangs_up(server: str, caplog: pytest.LogCaptureFixture) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port:
            for _ in range(5):
                async with dialled(port) as line:
                    await line.say(head(client, method="GET"))
                    await line.reader.readuntil(b"retry: 3000")
                    line.hang_up()
                await client.tool("announce")
            (streams,) = client.runtime._node.resumable.table._sessions.values()
            async with asyncio.timeout(PATIENCE):
                while streams.standalone.attached:
                    await asyncio.sleep(0.01)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
