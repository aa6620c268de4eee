"""Who may use a server that `understudy serve` runs, and what their calls are offered, by its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...actors.session.tenants.database import TenantDatabase
    from .config import ServeOptions

__all__ = ["helpers_of", "tenants_of"]


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


def _database(url: str, isolation: str | None) -> TenantDatabase:
    if isolation == "rows":
        from ..databases.row_level_security import RowLevelSecurity

        return RowLevelSecurity(url)
    if isolation == "databases":
        from ..databases.database_per_tenant import DatabasePerTenant

        return DatabasePerTenant(url)
    from ..databases.schema_per_tenant import SchemaPerTenant

    return SchemaPerTenant(url, roles=isolation == "roles")
