"""What a client is told of its credential: status and challenge, in both eras, by every ready-made resolver."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from edge.client import Client
from mcp.server.auth.provider import AccessToken
from starlette.requests import Request
from tenants.asking import in_era, knock, tenants_server
from tenants.issuer import AUDIENCE, ISSUER, public_jwk, token
from understudy.runtime import (
    ApiKey,
    ApiKeys,
    JwtTokens,
    NoSession,
    ProtectedResource,
    Runtime,
    TenantContext,
    Unauthenticated,
    current_tenant,
    from_token_verifier,
    new_api_key,
)

KEY, POOR_KEY, ENDED_KEY = new_api_key(), new_api_key(), new_api_key()
TOKEN, POOR_TOKEN, ENDED_TOKEN = token(), token(scope="read"), token(exp=1)


class Verifier:
    async def verify_token(self, token: str) -> AccessToken | None:
        match token:
            case "good":
                return AccessToken(token=token, client_id="acme", subject="ada", scopes=["use"])
            case "poor":
                return AccessToken(token=token, client_id="acme", subject="ada", scopes=[])
            case "ended":
                return AccessToken(token=token, client_id="acme", subject="ada", scopes=["use"], expires_at=1)
            case _:
                return None


def api_keys(**options: Any) -> ApiKeys:
    keys = [
        ApiKey.of(KEY, TenantContext("acme", "ada", scopes=frozenset({"use"}))),
        ApiKey.of(POOR_KEY, TenantContext("acme", "ada")),
        ApiKey.of(ENDED_KEY, TenantContext("acme", "ada", scopes=frozenset({"use"}), expires=1.0)),
    ]
    return ApiKeys(keys, **options)


def jwt_tokens(**options: Any) -> JwtTokens:
    return JwtTokens(issuer=ISSUER, audience=AUDIENCE, keys=[public_jwk(1)], **options)


def verified(**options: Any) -> Any:
    return from_token_verifier(Verifier(), **options)


RESOLVERS = pytest.mark.parametrize(
    ("make", "good", "poor", "ended"),
    [
        (api_keys, KEY, POOR_KEY, ENDED_KEY),
        (jwt_tokens, TOKEN, POOR_TOKEN, ENDED_TOKEN),
        (verified, "good", "poor", "ended"),
    ],
    ids=["api key", "jwt", "verifier"],
)
ERAS = pytest.mark.parametrize("era", ["handshake", "modern"])


@ERAS
@RESOLVERS
@pytest.mark.parametrize("described", [False, True])
async def test_each_refusal_has_its_status_and_challenge(
    make: Any, good: str, poor: str, ended: str, era: str, described: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tenants: Any = make(required_scopes=["use"])
    metadata = ""
    if described:
        tenants = ProtectedResource(
            make(), url=AUDIENCE, authorization_servers=["https://auth.example.com"], required_scopes=["use"]
        )
        metadata = 'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"'
    worthless = [ended, "garbage", "x" * 50_000, "a.b.c", "\xff\xfe", good[:-1]]
    with caplog.at_level(logging.DEBUG):
        async with in_era(era, tenants=tenants) as client:
            assert (await knock(client, good)).status == 200
            none = await knock(client, None)
            assert none.status == 401
            assert none.header("www-authenticate") == (f'Bearer scope="use", {metadata}' if described else "Bearer")
            for credential in worthless:
                call = await knock(client, credential)
                assert (call.status, call.json["error"]["code"], call.json["id"]) == (401, -32600, None), credential
                challenge = call.header("www-authenticate") or ""
                assert challenge.startswith('Bearer error="invalid_token", error_description="'), challenge
                assert challenge.endswith(metadata)
                assert credential not in call.body.decode() + challenge
            lacking = await knock(client, poor)
            assert (lacking.status, lacking.json["error"]["code"]) == (403, -32600)
            expected = 'Bearer error="insufficient_scope", scope="use"'
            assert lacking.header("www-authenticate") == (f"{expected}, {metadata}" if described else expected)
            for scheme in ("Basic YTpi", "Bearer", "Bearer  ", good):
                call = await client.ask("ping", headers={"authorization": scheme})
                assert call.status == 401, scheme
    for secret in (good, poor, *worthless):
        assert secret not in caplog.text


async def test_a_session_is_checked_on_every_request_and_belongs_to_one_principal() -> None:
    bob = new_api_key()
    keys = api_keys()
    known = [ApiKey.of(KEY, TenantContext("acme", "ada")), ApiKey.of(bob, TenantContext("acme", "bob"))]
    keys.replace(known)
    async with in_era("handshake", tenants=keys) as client:
        assert isinstance(client, Client)
        client.headers["authorization"] = f"Bearer {KEY}"
        await client.open()
        assert await client.tool("who") == "ada of acme"
        client.headers["authorization"] = f"Bearer {bob}"
        foreign = await client.begin_tool("who").answered()
        own, client.session = client.session, "A" * 32
        unknown = await client.begin_tool("who", id=foreign.json["id"]).answered()
        assert (foreign.status, foreign.body) == (unknown.status, unknown.body)
        assert foreign.status == 404
        client.session = own
        keys.replace([ApiKey.of(KEY, TenantContext("acme", "ada"), revoked=True)])
        client.headers["authorization"] = f"Bearer {KEY}"
        for method in ("POST", "GET", "DELETE"):
            assert (await client.send(method)).status == 401


async def test_a_context_that_has_ended_is_refused_whoever_made_it() -> None:
    def resolver(request: Request) -> TenantContext:
        return TenantContext("acme", "ada", expires=1.0)

    for era in ("handshake", "modern"):
        async with in_era(era, tenants=resolver) as client:
            call = await knock(client, "any")
            assert call.status == 401
            assert "has expired" in (call.header("www-authenticate") or "")


async def test_a_resolver_may_look_at_the_host() -> None:
    keys = {"acme": api_keys(), "globex": ApiKeys()}

    def by_host(request: Request) -> TenantContext:
        tenant, _, rest = (request.url.hostname or "").partition(".")
        if rest != "example.com" or tenant not in keys:
            raise Unauthenticated("no such customer")
        context = keys[tenant](request)
        assert isinstance(context, TenantContext)
        return context

    hosts = ("acme.example.com", "globex.example.com", "initech.example.com")
    async with in_era("modern", tenants=by_host, allowed_hosts=hosts) as client:
        for host, status in zip(hosts, (200, 401, 401), strict=True):
            call = await client.ask("tools/list", headers={"host": host, "authorization": f"Bearer {KEY}"})
            assert call.status == status, host


async def test_the_tenant_is_known_in_a_tool_with_and_without_a_session() -> None:
    with pytest.raises(NoSession, match="outside a call"):
        current_tenant()
    async with in_era("handshake", tenants=api_keys()) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        await client.open()
        assert await client.tool("who") == "ada of acme"
        assert await client.tool("who_without_session") == "ada of acme"
    async with in_era("modern", tenants=api_keys()) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        assert await client.tool("who_without_session") == "ada of acme"
        handle = await client.handle()  # type: ignore[union-attr]
        assert await client.tool("who", {"session": handle}) == "ada of acme"


async def test_the_numbers_of_a_resolver_are_metrics() -> None:
    async with Runtime(tenants_server(), tenants=api_keys()) as runtime:
        assert runtime.stats()["tenants_keys"] == 3
        assert b"understudy_tenants_refused_total 0.0" in runtime.metrics()[0]
