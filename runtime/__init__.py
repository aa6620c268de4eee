"""Where it runs: edge, node, tenants, command line.

Names are imported when first used: `understudy --help` should not wait for the MCP SDK.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..actors.session import (
        ANONYMOUS,
        HostingError,
        LimitExceeded,
        LiveObjects,
        NoSession,
        NoStandingStream,
        NotificationRefused,
        Session,
        StateConflict,
        StateError,
        TenantContext,
        TurnSession,
        current_session,
        current_tenant,
        requires,
        tenant_uri,
        tenant_uri_template,
    )
    from ..actors.session.tenants.cache_bounds import CacheBounds
    from ..actors.session.tenants.errors import (
        FileMissing,
        FilesError,
        PathRefused,
        QuotaExceeded,
        SecretMissing,
        SecretsUnavailable,
        TenantHelperError,
        WrongTenant,
    )
    from ..actors.session.tenants.folders import Files
    from ..actors.session.tenants.secret import Secret
    from ..actors.session.tenants.secrets_file import SecretsFile
    from ..stores import UnderstudyError
    from .audit.audit import Audit
    from .audit.audit_entry import AuditEntry
    from .cluster import ClusterOptions
    from .credentials.api_key import ApiKey, ApiKeyError, new_api_key
    from .credentials.api_keys import ApiKeys
    from .credentials.claims import ClaimNames, ClaimsRefused
    from .credentials.jwt_tokens import JwtTokens
    from .credentials.protected_resource import ProtectedResource
    from .credentials.signing_keys import SigningKeyError
    from .credentials.tenant_hosts import ByHost, by_host
    from .credentials.tenants import (
        CredentialUnchecked,
        Forbidden,
        RemembersTenants,
        TenantResolver,
        Unauthenticated,
        resolve_tenant,
    )
    from .credentials.token_verifier import from_token_verifier
    from .databases.database_per_tenant import DatabasePerTenant
    from .databases.errors import (
        DatabaseBusy,
        DatabaseError,
        DatabaseMisconfigured,
        DatabaseUnavailable,
        StatementRefused,
        TenantNotProvisioned,
    )
    from .databases.limits import DatabaseLimits
    from .databases.row_level_security import RowLevelSecurity
    from .databases.schema_per_tenant import SchemaPerTenant
    from .databases.tenant_connection import TenantConnection
    from .errors import ConfigurationError, NotStarted
    from .fairness import Fairness
    from .limits import Limits, LimitsFile, SessionLimits
    from .provider.session_errors import OutcomeUnknown, OwnTurn, SessionNotFound, SessionUnavailable
    from .provider.session_hooks import SessionEvent, SessionHook, SessionHooks
    from .provider.session_info import SessionData, SessionInfo, SessionPage
    from .provider.session_provider import SessionProvider
    from .provider.session_reference import SessionReference
    from .runtime import Era, Runtime

__all__ = [
    "ANONYMOUS",
    "ApiKey",
    "ApiKeyError",
    "ApiKeys",
    "Audit",
    "AuditEntry",
    "ByHost",
    "CacheBounds",
    "ClaimNames",
    "ClaimsRefused",
    "ClusterOptions",
    "ConfigurationError",
    "CredentialUnchecked",
    "DatabaseBusy",
    "DatabaseError",
    "DatabaseLimits",
    "DatabaseMisconfigured",
    "DatabasePerTenant",
    "DatabaseUnavailable",
    "Era",
    "Fairness",
    "FileMissing",
    "Files",
    "FilesError",
    "Forbidden",
    "HostingError",
    "JwtTokens",
    "LimitExceeded",
    "Limits",
    "LimitsFile",
    "LiveObjects",
    "NoSession",
    "NoStandingStream",
    "NotStarted",
    "NotificationRefused",
    "OutcomeUnknown",
    "OwnTurn",
    "PathRefused",
    "ProtectedResource",
    "QuotaExceeded",
    "RemembersTenants",
    "RowLevelSecurity",
    "Runtime",
    "SchemaPerTenant",
    "Secret",
    "SecretMissing",
    "SecretsFile",
    "SecretsUnavailable",
    "Session",
    "SessionData",
    "SessionEvent",
    "SessionHook",
    "SessionHooks",
    "SessionInfo",
    "SessionLimits",
    "SessionNotFound",
    "SessionPage",
    "SessionProvider",
    "SessionReference",
    "SessionUnavailable",
    "SigningKeyError",
    "StateConflict",
    "StateError",
    "StatementRefused",
    "TenantConnection",
    "TenantContext",
    "TenantHelperError",
    "TenantNotProvisioned",
    "TenantResolver",
    "TurnSession",
    "Unauthenticated",
    "UnderstudyError",
    "WrongTenant",
    "by_host",
    "current_session",
    "current_tenant",
    "from_token_verifier",
    "new_api_key",
    "requires",
    "resolve_tenant",
    "tenant_uri",
    "tenant_uri_template",
]

_ELSEWHERE = {
    "DatabaseBusy": ".databases.errors",
    "DatabaseError": ".databases.errors",
    "DatabaseLimits": ".databases.limits",
    "DatabaseMisconfigured": ".databases.errors",
    "DatabasePerTenant": ".databases.database_per_tenant",
    "DatabaseUnavailable": ".databases.errors",
    "RowLevelSecurity": ".databases.row_level_security",
    "SchemaPerTenant": ".databases.schema_per_tenant",
    "StatementRefused": ".databases.errors",
    "TenantConnection": ".databases.tenant_connection",
    "TenantNotProvisioned": ".databases.errors",
    "CacheBounds": "..actors.session.tenants.cache_bounds",
    "FileMissing": "..actors.session.tenants.errors",
    "Files": "..actors.session.tenants.folders",
    "FilesError": "..actors.session.tenants.errors",
    "PathRefused": "..actors.session.tenants.errors",
    "QuotaExceeded": "..actors.session.tenants.errors",
    "Secret": "..actors.session.tenants.secret",
    "SecretMissing": "..actors.session.tenants.errors",
    "SecretsFile": "..actors.session.tenants.secrets_file",
    "SecretsUnavailable": "..actors.session.tenants.errors",
    "TenantHelperError": "..actors.session.tenants.errors",
    "WrongTenant": "..actors.session.tenants.errors",
    "ApiKey": ".credentials.api_key",
    "ApiKeyError": ".credentials.api_key",
    "ApiKeys": ".credentials.api_keys",
    "Audit": ".audit.audit",
    "AuditEntry": ".audit.audit_entry",
    "ByHost": ".credentials.tenant_hosts",
    "ClaimNames": ".credentials.claims",
    "ClaimsRefused": ".credentials.claims",
    "ClusterOptions": ".cluster",
    "ConfigurationError": ".errors",
    "Era": ".runtime",
    "CredentialUnchecked": ".credentials.tenants",
    "Fairness": ".fairness",
    "Forbidden": ".credentials.tenants",
    "JwtTokens": ".credentials.jwt_tokens",
    "Limits": ".limits",
    "LimitsFile": ".limits",
    "NotStarted": ".errors",
    "ProtectedResource": ".credentials.protected_resource",
    "RemembersTenants": ".credentials.tenants",
    "Runtime": ".runtime",
    "SessionLimits": ".limits",
    "SessionNotFound": ".provider.session_errors",
    "SessionReference": ".provider.session_reference",
    "OutcomeUnknown": ".provider.session_errors",
    "OwnTurn": ".provider.session_errors",
    "SessionEvent": ".provider.session_hooks",
    "SessionHook": ".provider.session_hooks",
    "SessionHooks": ".provider.session_hooks",
    "SessionData": ".provider.session_info",
    "SessionInfo": ".provider.session_info",
    "SessionPage": ".provider.session_info",
    "SessionProvider": ".provider.session_provider",
    "SessionUnavailable": ".provider.session_errors",
    "SigningKeyError": ".credentials.signing_keys",
    "TenantResolver": ".credentials.tenants",
    "Unauthenticated": ".credentials.tenants",
    "UnderstudyError": "..stores",
    "by_host": ".credentials.tenant_hosts",
    "from_token_verifier": ".credentials.token_verifier",
    "new_api_key": ".credentials.api_key",
    "resolve_tenant": ".credentials.tenants",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "..actors.session"), __name__), name)
    globals()[name] = value
    return value
