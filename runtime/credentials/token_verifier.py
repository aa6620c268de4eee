"""`from_token_verifier`: a `TenantResolver` of what the SDK calls a `TokenVerifier`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any

from mcp.server.auth.provider import AccessToken, TokenVerifier, principal_components
from starlette.requests import Request

from ...actors.session import TenantContext
from ..errors import ConfigurationError
from .challenges import checked_scopes, require_scopes
from .claims import ClaimNames, ClaimsRefused
from .credential_header import CredentialHeader
from .tenants import forget_tenant

__all__ = ["from_token_verifier"]

LARGEST = 8192


def from_token_verifier(
    verifier: TokenVerifier,
    *,
    claims: ClaimNames | Callable[[AccessToken], TenantContext] | None = None,
    resource: str | None = None,
    required_scopes: Iterable[str] = (),
) -> Callable[[Request], Any]:
    """A `TenantResolver` that has `verifier` check the token of `Authorization: Bearer`, on every request.

    Args:
        verifier: Says what a token is worth; None for nothing, which is a 401.
        claims: Which claims say who it is, `client_id`, `sub` and `scope` as the verifier gives them among them; or a
            function of the `AccessToken`, whose `ValueError` is a 401. None: the tenant is the client (`client_id`),
            and the principal its user (`user:<sub>`, with the issuer before it where it is known) or, where there is
            none, the client itself (`client:<client_id>`), as the SDK tells them apart.
        resource: What `AccessToken.resource` must be, a slash at the end aside. None: the verifier sees to it.
        required_scopes: What each token must have been given.

    Nothing is remembered here; a `verifier` that remembers can have a method `forget(tenant)` (`RemembersTenants`).

    Raises:
        ConfigurationError: `verifier` is none, or a scope is none.
    """
    if not callable(getattr(verifier, "verify_token", None)):
        raise ConfigurationError(f"verifier is {type(verifier).__name__}; it must have verify_token(token)")
    required = checked_scopes(required_scopes)
    header = CredentialHeader()

    async def resolve(request: Request) -> TenantContext:
        token = header.read(request)
        if len(token) > LARGEST:
            raise header.refusal(f"the token is longer than {LARGEST} bytes")
        access = await verifier.verify_token(token.decode("latin-1"))
        if access is None:
            raise header.refusal("the token is not valid")
        if resource is not None and (access.resource or "").rstrip("/") != resource.rstrip("/"):
            raise header.refusal("the token is for another resource")
        try:
            context = _as_the_sdk(access) if claims is None else _by(claims, access)
        except ClaimsRefused as error:
            raise header.refusal(str(error)) from None
        except ValueError:
            raise header.refusal("the claims of the token cannot be used") from None
        return require_scopes(context, required)

    def forget(tenant: str | None) -> None:
        forget_tenant(verifier, tenant)

    # It is a function, which can carry what `RemembersTenants` asks for.
    setattr(resolve, "forget", forget)  # noqa: B010
    return resolve


def _by(claims: ClaimNames | Callable[[AccessToken], TenantContext], access: AccessToken) -> TenantContext:
    if isinstance(claims, ClaimNames):
        return claims.context(_claims_of(access), expires=access.expires_at)
    return claims(access)


def _claims_of(access: AccessToken) -> dict[str, Any]:
    # What the verifier has made out has the last word over what it has only passed on.
    known: dict[str, Any] = {**(access.claims or {}), "client_id": access.client_id, "scope": list(access.scopes)}
    if access.subject is not None:
        known["sub"] = access.subject
    return known


def _as_the_sdk(access: AccessToken) -> TenantContext:
    client_id, issuer, subject = principal_components(access)
    if issuer is not None and " " in issuer:
        raise ClaimsRefused("the claim iss must be a URL")
    # A subject means something to its issuer only, and a user may be called as a client is.
    user = subject if issuer is None else f"{issuer} {subject}"
    return TenantContext(
        tenant=client_id,
        principal=f"client:{client_id}" if subject is None else f"user:{user}",
        scopes=frozenset(access.scopes),
        claims=MappingProxyType(_claims_of(access)),
        expires=access.expires_at,
    )
