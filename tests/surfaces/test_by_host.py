"""A host name for each tenant."""

from __future__ import annotations

from typing import Any

import pytest
from edge.client import Client, ModernClient, connected, initialize_params
from surfaces.shops import bearer, mcpserver, resolve
from understudy.runtime import ConfigurationError, ProtectedResource, Runtime, TenantContext, by_host, current_tenant
from understudy.runtime.wire.security import HostGuard

PATTERN = "{tenant}.example.com"


@pytest.mark.parametrize(
    ("host", "tenant"),
    [
        ("acme.example.com", "acme"),
        ("ACME.Example.com:8443", "acme"),
        ("a-1.example.com", "a-1"),
        ("example.com", None),
        (".example.com", None),
        ("-a.example.com", None),
        ("a.b.example.com", None),
        ("acme.example.com.evil.org", None),
        ("acmeXexample.com", None),
        ("acme.example.com:x", None),
        ("ac%me.example.com", None),
        ("", None),
        ("a" * 64 + ".example.com", None),
    ],
)
def test_a_host_is_its_tenants(host: str, tenant: str | None) -> None:
    assert by_host(resolve, pattern=PATTERN).tenant_of(host) == tenant


def test_labels_may_be_given_other_names() -> None:
    named = by_host(resolve, pattern="mcp-{tenant}.example.com", names={"Acme": "Acme Inc."})
    assert named.tenant_of("mcp-acme.example.com") == "Acme Inc."
    assert named.tenant_of("mcp-globex.example.com") is None
    assert named.allowed_host == "mcp-*.example.com"


@pytest.mark.parametrize("pattern", ["example.com", "{tenant}", "{tenant}.{tenant}.com", "{tenant}.ex ample.com", ""])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"it must be a host name with \{tenant\} in it once"):
        by_host(resolve, pattern=pattern)


def test_a_host_alone_is_believed_only_if_the_operator_says_so() -> None:
    with pytest.raises(ConfigurationError, match="trusted=True"):
        by_host(None, pattern=PATTERN)
    with pytest.raises(ConfigurationError, match="leave it out"):
        by_host(resolve, pattern=PATTERN, trusted=True)


@pytest.mark.parametrize("kind", [Client, ModernClient], ids=["handshake", "modern"])
async def test_a_credential_opens_the_host_of_its_tenant_and_no_other(kind: type[Client]) -> None:
    tenants = by_host(resolve, pattern=PATTERN)
    hosts = [tenants.allowed_host, "localhost"]
    async with (
        Runtime(mcpserver(), tenants=tenants, allowed_hosts=hosts) as runtime,
        connected(runtime.app, kind) as client,
    ):
        method, params = ("tools/list", {}) if kind is ModernClient else ("initialize", initialize_params())

        async def status(host: str, **headers: str) -> int:
            return (await client.ask(method, params, headers={"host": host, **headers})).status

        assert await status("acme.example.com", **bearer("acme")) == 200
        assert await status("acme.example.com:8000", **bearer("acme")) == 200
        assert await status("globex.example.com", **bearer("acme")) == 403
        assert await status("localhost", **bearer("acme")) == 403
        assert await status("acme.example.com") == 401
        assert await status("globex.example.com") == 401
        assert await status("a.b.example.com", **bearer("acme")) == 421
        assert await status("acme.example.org", **bearer("acme")) == 421


async def test_a_trusted_host_names_the_tenant_of_who_has_no_credential() -> None:
    server: Any = mcpserver()

    @server.tool()
    async def who() -> str:
        return f"{current_tenant().principal} of {current_tenant().tenant}"

    tenants = by_host(None, pattern=PATTERN, trusted=True)
    async with (
        Runtime(server, tenants=tenants, allowed_hosts=["*"]) as runtime,
        connected(runtime.app, ModernClient) as client,
    ):
        client.headers = {"host": "acme.example.com"}
        assert await client.tool("who") == "anonymous of acme"
        assert (await client.ask("tools/list", headers={"host": "localhost"})).status == 403


async def test_a_resolver_that_waits_and_one_that_says_where_tokens_are_go_together() -> None:
    async def later(request: Any) -> TenantContext:
        return resolve(request)

    inner = by_host(later, pattern=PATTERN)
    tenants = ProtectedResource(inner, url="https://acme.example.com/mcp", authorization_servers=["https://a.example"])
    async with (
        Runtime(mcpserver(), tenants=tenants, allowed_hosts=["*.example.com"]) as runtime,
        connected(runtime.app, ModernClient) as client,
    ):
        client.headers = bearer("acme")
        assert (await client.ask("tools/list", headers={"host": "acme.example.com"})).status == 200
        refused = await client.ask("tools/list", headers={"host": "globex.example.com"})
        assert refused.status == 403
        assert b"not for this host" in refused.body


def test_a_star_in_front_allows_one_label_and_no_more() -> None:
    guard = HostGuard(["*.example.com", "mcp-*.example.org", "*.example.net:8000"], ["https://*.example.com"])
    allowed = [
        b"acme.example.com",
        b"ACME.example.com:1",
        b"x_1.example.com",
        b"b.example.net:8000",
        b"mcp-a.example.org",
    ]
    refused = [
        b"example.com",
        b".example.com",
        b"a.b.example.com",
        b"acme.example.com.evil.org",
        b"*.example.com",
        b"mcp-.example.org",
        b"mcp-a.b.example.org",
        b"b.example.net:8001",
        b"a b.example.com",
        b"[::1]",
        b"",
    ]
    assert [host for host in allowed if not guard.allows_host(host)] == []
    assert [host for host in refused if guard.allows_host(host)] == []
    assert guard.allows_origin(b"https://acme.example.com")
    assert not guard.allows_origin(b"http://acme.example.com")
    assert not guard.allows_origin(b"https://evil.org/.example.com")
