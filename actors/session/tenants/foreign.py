"""`refuse_foreign_uris`: to a tenant, another tenant's resources are unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from .uris import is_foreign

__all__ = ["refuse_foreign_uris"]

_METHODS: Final = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen"})


def refuse_foreign_uris(method: str, params: Mapping[str, Any] | None, tenant: str) -> None:
    """
    Raises:
        MCPError: no-wrong-tenant: a URI is another tenant's. What an `MCPServer` says of a resource that is not there.
    """
    if method not in _METHODS or params is None:
        return
    for uri in _uris(params):
        if is_foreign(uri, tenant):
            raise MCPError(INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})


def _uris(params: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = [params.get("uri")]
    asked: Any = params.get("notifications")
    if isinstance(asked, Mapping):
        named: Any = cast("Mapping[str, Any]", asked).get("resourceSubscriptions")
        if isinstance(named, list):
            found += cast("list[Any]", named)
    return found
