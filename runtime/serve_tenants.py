"""Who may use a server that `understudy serve` runs, by its options."""

from __future__ import annotations

from typing import Any

from .config import ServeOptions

__all__ = ["tenants_of"]


def tenants_of(options: ServeOptions) -> dict[str, Any]:
    """The option `tenants` of `Runtime`, if the options name anything that tells who is asking.

    Raises:
        ApiKeyError: The file of keys cannot be used.
        ConfigurationError: An option of tokens is out of range.
    """
    if options.api_keys is not None:
        from .api_keys import ApiKeys

        return {"tenants": ApiKeys.from_file(options.api_keys)}
    if options.jwt_issuer is None or options.jwt_audience is None or options.jwks_url is None:
        return {}
    from .claims import ClaimNames
    from .jwt_tokens import JwtTokens

    tokens = JwtTokens(
        issuer=options.jwt_issuer,
        audience=options.jwt_audience,
        jwks_url=options.jwks_url,
        claims=ClaimNames(tenant=options.jwt_tenant),
    )
    return {"tenants": tokens}
