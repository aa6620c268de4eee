"""`refuse_foreign_uris`: to a tenant, another tenant's resources are unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from .uris import is_foreign, tenants_variable

__all__ = ["refuse_foreign_uris"]

_COMPLETE: Final = "completion/complete"

_METHODS: Final = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen"})


def refuse_foreign_uris(method: str, params: Mapping[str, Any] | None, tenant: str) -> None:
    """
    Raises:
        MCPError: no-wrong-tenant: a URI is another tenant's. What an `MCPServer` says of a resource that is not there.
    """
    if params is None:
        return
    if method == _COMPLETE:
        _refuse_foreign_completion(params, tenant)
    if method not in _METHODS:
        return
    for uri in _uris(params):
        if is_foreign(uri, tenant):
            raise _unknown(uri)


def _refuse_foreign_completion(params: Mapping[str, Any], tenant: str) -> None:
    """What completes a part of a tenant's URI must not be asked to do so within another tenant's."""
    ref: Any = params.get("ref")
    uri: Any = cast("Mapping[str, Any]", ref).get("uri") if isinstance(ref, Mapping) else None
    variable = tenants_variable(uri)
    if variable is None:
        if is_foreign(uri, tenant):
            raise _unknown(uri)
        return
    context: Any = params.get("context")
    given: Any = cast("Mapping[str, Any]", context).get("arguments") if isinstance(context, Mapping) else None
    named: Any = cast("Mapping[str, Any]", given).get(variable) if isinstance(given, Mapping) else None
    if named not in (None, tenant):
        raise _unknown(uri)


def _unknown(uri: str) -> MCPError:
    return MCPError(INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})


def _uris(params: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = [params.get("uri")]
    asked: Any = params.get("notifications")
    if isinstance(asked, Mapping):
        named: Any = cast("Mapping[str, Any]", asked).get("resourceSubscriptions")
        if isinstance(named, list):
            found += cast("list[Any]", named)
    return found
