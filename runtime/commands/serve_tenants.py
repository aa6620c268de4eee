"""Who may use a server that `understudy serve` runs, and what their calls are offered, by its options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .config import ConfigError

if TYPE_CHECKING:
    from ...actors.session import TenantContext
    from ...actors.session.tenants.database import TenantDatabase
    from .config import ServeOptions

__all__ = ["helpers_of", "plan_weights", "shares_of", "tenants_of"]


def tenants_of(options: ServeOptions) -> dict[str, Any]:
    """The option `tenants` of `Runtime`, if the options name anything that tells who is asking.

    Raises:
        ApiKeyError: The file of keys cannot be used.
        ConfigurationError: An option of tokens is out of range.
    """
    if options.api_keys is not None:
        from ..credentials.api_keys import ApiKeys

        return {"tenants": ApiKeys.from_file(options.api_keys)}
    if options.jwt_issuer is None or options.jwt_audience is None or options.jwks_url is None:
        return {}
    from ..credentials.claims import ClaimNames
    from ..credentials.jwt_tokens import JwtTokens

    tokens = JwtTokens(
        issuer=options.jwt_issuer,
        audience=options.jwt_audience,
        jwks_url=options.jwks_url,
        claims=ClaimNames(tenant=options.jwt_tenant),
    )
    return {"tenants": tokens}


def helpers_of(options: ServeOptions) -> dict[str, Any]:
    """The options `files`, `secrets` and `database` of `Runtime`, those that are named. Reads the file of secrets.

    Raises:
        SecretsFileError: It cannot be used.
        ConfigurationError: asyncpg is not installed.
    """
    helpers: dict[str, Any] = {}
    if options.files is not None:
        helpers["files"] = options.files
    if options.secrets is not None:
        from ...actors.session.tenants.secrets_file import SecretsFile

        source = helpers["secrets"] = SecretsFile(options.secrets)
        source.load()
    if options.database is not None:
        helpers["database"] = _database(options.database, options.database_isolation)
    return helpers


def shares_of(options: ServeOptions) -> dict[str, Any]:
    """The options `cache` and `fairness` of `Runtime`: what of a node one tenant may have beside the others.

    Raises:
        ConfigError: As `plan_weights`.
    """
    from ...actors.session.tenants.cache_bounds import CacheBounds
    from ..fairness import Fairness

    shares: dict[str, Any] = {
        "cache": CacheBounds(max_bytes=options.tenant_cache, max_total_bytes=options.tenant_cache_total)
    }
    if options.fairness == "off":
        return {**shares, "fairness": "off"}
    given: dict[str, Any] = {}
    if options.plan_weights:
        weights = plan_weights(options.plan_weights)

        def weight(tenant: TenantContext) -> float:
            return 1.0 if tenant.plan is None else weights.get(tenant.plan, 1.0)

        given["weight"] = weight
    if options.blocking_threads is not None:
        given["blocking_threads"] = options.blocking_threads
    return {**shares, "fairness": Fairness(**given)}


def plan_weights(given: Sequence[str]) -> dict[str, float]:
    """By plan, of texts such as `pro=4`.

    Raises:
        ConfigError: One is no such text, its number is not from 0.01 to 100, or it says a plan twice.
    """
    weights: dict[str, float] = {}
    for text in given:
        # A plan may have the sign in its name.
        plan, _, number = text.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not plan or not 0.01 <= weight <= 100:
            raise ConfigError(f"--plan-weight {text[:64]!r} must be a plan and a number from 0.01 to 100, as in pro=4")
        if plan in weights:
            raise ConfigError(f"--plan-weight names the plan {plan[:64]!r} twice; say one weight of it")
        weights[plan] = weight
    return weights


def _database(url: str, isolation: str | None) -> TenantDatabase:
    if isolation == "rows":
        from ..databases.row_level_security import RowLevelSecurity

        return RowLevelSecurity(url)
    if isolation == "databases":
        from ..databases.database_per_tenant import DatabasePerTenant

        return DatabasePerTenant(url)
    from ..databases.schema_per_tenant import SchemaPerTenant

    return SchemaPerTenant(url, roles=isolation == "roles")
