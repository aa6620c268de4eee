"""URIs of tenants' resources: no two mean the same, and another's is as unknown as one that never was."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from edge.client import Client, ModernClient, hosting, hosting_modern
from edge.test_session_ids import by_bearer
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp_types import Completion
from understudy.actors.session.tenants.uris import URIRefused, is_foreign
from understudy.runtime import TenantContext, current_tenant, tenant_uri, tenant_uri_template

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.lists(ANY_TEXT, min_size=1, max_size=4), ANY_TEXT.filter(lambda text: "\0" not in text))
def test_what_goes_in_comes_out_and_only_for_its_tenant(segments: list[str], tenant: str) -> None:
    context = TenantContext(tenant, "ada")
    try:
        uri = context.uri(*segments)
    except URIRefused:
        assert {".", ".."} & {tenant, *segments}
        return
    assert uri.isascii()
    assert context.uri_segments(uri) == tuple(segments)
    assert not is_foreign(uri, tenant)
    other = TenantContext(tenant + "x", "ada")
    assert is_foreign(uri, other.tenant)
    with pytest.raises(ResourceNotFoundError, match="Unknown resource"):
        other.uri_segments(uri)


def test_another_spelling_of_a_uri_is_another_uri() -> None:
    acme = TenantContext("acme", "ada")
    uri = acme.uri("orders", 42, "a/b c")
    assert uri == "resource://tenant-space/acme/orders/42/a%2Fb%20c"
    for other in (
        uri.replace("acme", "%61cme"),
        uri.replace("%2F", "%2f"),
        uri.replace("%2F", "/"),
        uri.replace("acme", "other/../acme"),
        uri.replace("acme", "other/%2e%2e/acme"),
        uri.replace("tenant-space", "Tenant-Space"),
        uri.replace("tenant-space", "tenant%2Dspace"),
        uri.replace("tenant-space", "x@tenant-space"),
        uri.replace("tenant-space", "tenant-space:1"),
        uri.replace("tenant-space/", "tenant-space//"),
        uri.replace("acme", "ACME"),
        uri + "/",
        uri + "?x",
        uri + "#x",
        uri.replace("resource", "RESOURCE"),
        uri.replace("%20", "%FF"),
        "resource://tenant-space/acme",
        "resource://tenant-space",
    ):
        if other not in (uri.replace("%2F", "/"),):
            assert is_foreign(other, "acme"), other
            with pytest.raises(ResourceNotFoundError):
                acme.uri_segments(other)
    for plain in ("resource://orders/42", "https://example.com/tenant-space/other/x", "x", "", 1, None):
        assert not is_foreign(plain, "acme"), "a server's other resources are its own affair"


def test_what_cannot_be_part_of_a_uri_is_refused() -> None:
    acme = TenantContext("acme", "ada")
    segments: Any
    for segments in ((), ("",), (".",), ("a", ".."), ("\ud800",), (b"a",), (None,), (1.5,), ("x" * 9000,)):
        with pytest.raises(URIRefused):
            acme.uri(*segments)
    for scheme in ("", "Shop", "1a", "a b", "a:b"):
        with pytest.raises(URIRefused):
            acme.uri("a", scheme=scheme)
    with pytest.raises(URIRefused):
        TenantContext("..", "ada").uri("a")
    for path in ("", "/a", "a b", "a?b"):
        with pytest.raises(URIRefused):
            tenant_uri_template(path)


def shop() -> MCPServer:
    server = MCPServer("shop", log_level="CRITICAL")

    @server.resource(tenant_uri_template("orders/{number}", scheme="shop"))
    async def order(tenant: str, number: str) -> str:
        assert tenant == current_tenant().tenant
        return f"order {number} of {tenant}"

    @server.tool()
    async def name(number: str) -> str:
        return tenant_uri("orders", number, scheme="shop")

    return server


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_nothing_is_completed_within_another_tenants_uris(era: str) -> None:
    server = shop()
    template = tenant_uri_template("orders/{number}", scheme="shop")
    asked: list[Any] = []

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        asked.append(context)
        return Completion(values=["42"])

    def question(uri: str, named: Any = None) -> dict[str, Any]:
        argument = {"name": "number", "value": "4"}
        context = {} if named is None else {"context": {"arguments": {"tenant": named}}}
        return {"ref": {"type": "ref/resource", "uri": uri}, "argument": argument, **context}

    async with (hosting if era == "handshake" else hosting_modern)(server, tenants=by_bearer) as client:
        client.headers["authorization"] = "Bearer acme/ann"
        if era == "handshake":
            await client.open()
        good = [
            (template, "acme"),
            (template, None),
            ("shop://tenant-space/acme/orders/42", None),
            ("shop://x", "evil"),
        ]
        for uri, named in good:
            told = (await client.ask("completion/complete", question(uri, named))).result
            assert told["completion"]["values"] == ["42"]
        assert len(asked) == len(good)
        foreign = [(template, "evil"), (template, ""), ("shop://tenant-space/evil/orders/{number}", None)]
        foreign += [
            ("shop://Tenant-Space/{tenant}/orders/{number}", "evil"),
            ("shop://tenant-space/evil/orders/1", "acme"),
        ]
        for uri, named in foreign:
            refused = await client.ask("completion/complete", question(uri, named))
            assert refused.failure["message"] == f"Unknown resource: {uri}"
        assert len(asked) == len(good)


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_another_tenants_resource_is_unknown_on_the_wire(era: str) -> None:
    client: Client | ModernClient
    async with (hosting if era == "handshake" else hosting_modern)(shop(), tenants=by_bearer) as client:
        theirs: dict[str, str] = {}
        clients = {tenant: client.twin(authorization=f"Bearer {tenant}/ann") for tenant in ("acme", "evil", "a b/ü")}
        for tenant in ("acme", "evil"):
            if era == "handshake":
                await clients[tenant].open()
            theirs[tenant] = await clients[tenant].tool("name", {"number": "4/2"})
        read = (await clients["acme"].ask("resources/read", {"uri": theirs["acme"]})).result
        assert read["contents"][0]["text"] == "order 4/2 of acme"
        never = "shop://never-was/orders/42"
        methods = ["resources/read", *(["resources/subscribe", "resources/unsubscribe"] if era == "handshake" else [])]
        for method in methods:
            for uri in (theirs["evil"], theirs["evil"].replace("evil", "nobody"), quote("x") and theirs["acme"] + "?"):
                refused = await clients["acme"].ask(method, {"uri": uri}, id=7)
                unknown = await clients["acme"].ask("resources/read", {"uri": never}, id=7)
                assert refused.status == unknown.status
                assert refused.body.replace(uri.encode(), b"") == unknown.body.replace(never.encode(), b"")
        if era == "modern":
            listen = {"notifications": {"resourceSubscriptions": [theirs["acme"], theirs["evil"]]}}
            refused = await clients["acme"].ask("subscriptions/listen", listen)
            assert refused.failure["message"] == f"Unknown resource: {theirs['evil']}"
