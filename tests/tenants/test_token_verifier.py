"""The SDK's `TokenVerifier` as a resolver."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.server.auth.provider import AccessToken
from tenants.asking import ask, refusal
from understudy.runtime import ClaimNames, ConfigurationError, TenantContext, from_token_verifier


class Verifier:
    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    async def verify_token(self, token: str) -> AccessToken | None:
        given: dict[str, Any] = {"token": token, "client_id": "web", "scopes": ["use"], **self.fields}
        return AccessToken(**given) if token == "good" else None


@pytest.mark.parametrize(
    ("fields", "principal"),
    [
        ({}, "client:web"),
        ({"subject": "ada"}, "user:ada"),
        ({"subject": "ada", "claims": {"iss": "https://a.example"}}, "user:https://a.example ada"),
    ],
)
async def test_principals_are_told_apart_as_the_sdk_does(fields: dict[str, Any], principal: str) -> None:
    context = await ask(from_token_verifier(Verifier(**fields)), "good")
    assert (context.tenant, context.principal, context.scopes) == ("web", principal, {"use"})


async def test_claims_are_found_by_their_names_or_by_a_function() -> None:
    verifier = Verifier(
        subject="ada", claims={"org": "acme", "sub": "eve", "client_id": "evil"}, expires_at=2_000_000_000
    )
    context = await ask(from_token_verifier(verifier, claims=ClaimNames(tenant="org")), "good")
    assert (context.tenant, context.principal, context.expires) == ("acme", "ada", 2_000_000_000)
    assert context.claims["client_id"] == "web"
    by_hand = from_token_verifier(verifier, claims=lambda access: TenantContext("x", access.subject or ""))
    assert (await ask(by_hand, "good")).tenant == "x"
    nobody = from_token_verifier(Verifier(), claims=lambda access: TenantContext("x", access.subject or ""))
    assert "cannot be used" in str(await refusal(nobody, "good"))
    assert "the claim org" in str(
        await refusal(from_token_verifier(Verifier(), claims=ClaimNames(tenant="org")), "good")
    )


async def test_a_token_for_another_resource_is_refused() -> None:
    verifier = Verifier(resource="https://mcp.example.com/")
    assert (await ask(from_token_verifier(verifier, resource="https://mcp.example.com"), "good")).tenant == "web"
    for resource in ("https://mcp.example.com/mcp", "https://other.example.com"):
        assert "another resource" in str(await refusal(from_token_verifier(verifier, resource=resource), "good"))
    await refusal(from_token_verifier(Verifier(), resource="https://mcp.example.com"), "good")


async def test_what_the_verifier_does_not_know_is_refused() -> None:
    for token in ("bad", "x" * 9000, None):
        await refusal(from_token_verifier(Verifier()), token)


def test_what_cannot_verify_is_refused() -> None:
    nothing: Any = object()
    with pytest.raises(ConfigurationError, match="verify_token"):
        from_token_verifier(nothing)
