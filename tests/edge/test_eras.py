"""Which era answers: a node that serves one of the two says so, and clients of both find it."""

from __future__ import annotations

from typing import Any

import mcp
import pytest
from edge.client import LATEST, MODERN, Client, ModernClient, connected, hosting, hosting_modern
from edge.server import make_server
from edge.sockets import carried
from mcp.shared.exceptions import MCPError
from understudy.runtime import Runtime

UNSUPPORTED = -32022


async def test_a_node_of_the_handshake_era_says_what_it_speaks() -> None:
    async with hosting_modern(make_server(), eras=("handshake",)) as client:
        for call in (
            await client.ask("tools/list"),
            await client.ask("server/discover"),
            await client.send("GET", headers={"mcp-protocol-version": MODERN}),
        ):
            assert call.status == 400
            assert call.json["error"]["code"] == UNSUPPORTED
            assert LATEST in call.json["error"]["data"]["supported"]
            assert MODERN not in call.json["error"]["data"]["supported"]
        handshake = Client(client._connections)
        await handshake.open()
        assert await handshake.tool("increment") == 1


async def test_a_node_of_the_modern_era_says_what_it_speaks() -> None:
    async with hosting(make_server(), eras=("modern",)) as client:
        for version in (None, LATEST, "2025-03-26"):
            for method in ("POST", "GET", "DELETE"):
                call = await client.send(
                    method, client.message("initialize", {}), headers={"mcp-protocol-version": version}
                )
                assert call.status == 400
                assert call.json["error"]["code"] == UNSUPPORTED
                assert call.json["error"]["data"]["supported"] == [MODERN]
        modern = ModernClient(client._connections)
        assert (await modern.ask("tools/list")).status == 200


@pytest.mark.parametrize(
    ("eras", "mode", "revision"),
    [
        (("handshake",), "auto", LATEST),
        (("handshake",), "legacy", LATEST),
        (("modern",), "auto", MODERN),
        (("handshake", "modern"), "auto", MODERN),
        (("handshake", "modern"), "legacy", LATEST),
    ],
)
async def test_the_sdks_client_finds_the_era_that_is_served(eras: Any, mode: Any, revision: str) -> None:
    async with Runtime(make_server(), eras=eras) as runtime, connected(runtime.app) as carrier:
        carrier.runtime = runtime
        async with (
            carried(carrier, "hypercorn") as port,
            mcp.Client(f"http://127.0.0.1:{port}/mcp", mode=mode) as client,
        ):
            assert client.session.protocol_version == revision
            assert "echo" in {tool.name for tool in (await client.list_tools()).tools}


async def test_a_client_of_the_past_is_told_that_only_the_present_is_served() -> None:
    async with hosting(make_server(), eras=("modern",)) as carrier, carried(carrier, "hypercorn") as port:
        with pytest.raises(ExceptionGroup) as raised:
            async with mcp.Client(f"http://127.0.0.1:{port}/mcp", mode="legacy"):
                pass
        assert raised.group_contains(MCPError, match="Unsupported protocol version")
