"""The checks before all others: which host was asked for, from which page, and headers that must come once."""

from __future__ import annotations

import pytest
from edge.client import LATEST, hosting
from edge.server import make_server
from edge.test_handshake_table import initialize, refused


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "localhost:80:80",
        "127.0.0.1.evil",
        "",
        "[::1]:x",
        None,
        "\xe9",
        "a" * 9999,
    ],
)
async def test_a_foreign_host_is_misdirected(host: str | None) -> None:
    async with hosting(make_server()) as client:
        assert refused(await client.send("BREW", headers={"host": host, "origin": "https://evil.example"}), 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:65535", "[::1]", "[::1]:80"])
async def test_a_local_host_is_served_on_any_port(host: str) -> None:
    async with hosting(make_server()) as client:
        assert (await initialize(client, headers={"host": host}).answered()).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://localhost.evil.example", "localhost"])
async def test_a_foreign_origin_is_forbidden(origin: str) -> None:
    async with hosting(make_server()) as client:
        for method in ("POST", "GET", "DELETE", "OPTIONS"):
            assert refused(await client.send(method, headers={"origin": origin}), 403) == "Origin not allowed"


async def test_hosts_and_origins_are_the_ones_allowed() -> None:
    options = {"allowed_hosts": ["mcp.example", "other.example:8443"], "allowed_origins": ["https://app.example"]}
    async with hosting(make_server(), **options) as client:
        for host, origin, status in (
            ("mcp.example", "https://app.example", 200),
            ("mcp.example:123", "https://app.example:99", 200),
            ("other.example:8443", None, 200),
            ("other.example", None, 421),
            ("localhost", None, 421),
            ("mcp.example", "http://app.example", 403),
            ("mcp.example", "http://localhost", 403),
        ):
            call = await initialize(client, headers={"host": host, "origin": origin}).answered()
            assert call.status == status, (host, origin)


async def test_a_header_that_comes_twice_and_must_not_is_refused() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        assert client.session is not None
        for name, values in (
            ("mcp-session-id", [client.session, client.session]),
            ("mcp-session-id", ["other", client.session]),
            ("host", ["evil.example", "localhost"]),
            ("origin", ["https://evil.example", "http://localhost"]),
            ("content-type", ["text/plain", "application/json"]),
            ("authorization", ["Bearer a", "Bearer b"]),
        ):
            call = await client.ask("ping", headers={name: values})
            assert refused(call, 400) == f"{name} header appears more than once"
        for versions in ([LATEST, "2025-06-18"], ["2026-07-28", LATEST]):
            call = await client.ask("ping", headers={"mcp-protocol-version": versions})
            assert (call.status, call.failure["code"]) == (400, -32020)
