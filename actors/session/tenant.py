"""`TenantContext`: who a conversation belongs to and what it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...stores.arguments import checked_text

__all__ = ["ANONYMOUS", "TenantContext"]

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantContext:
    """What a credential says about its bearer; resolved anew on every request, never taken from the client's word.

    Two contexts with the same `tenant` and `principal` are the same party: a session opened by one answers the other.
    """

    tenant: str
    """The customer: sessions, keys, metrics and log lines carry it."""
    principal: str
    """Who within the tenant (a user, an API key's name). A session answers only to the principal that opened it."""
    plan: str | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=lambda: _NO_CLAIMS, compare=False)
    expires: float | None = None
    """Unix time in seconds after which the credential is worth nothing; None: no end known."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: `tenant` or `principal` is empty, or nothing that a store can keep.
        """
        for name, text in (("tenant", self.tenant), ("principal", self.principal)):
            if not checked_text(name, text):
                raise ValueError(f"{name} must not be empty")

    @property
    def surface(self) -> tuple[str, str, str | None, frozenset[str]]:
        """What a server factory may depend on: contexts of one surface can share what is built for it."""
        return (self.tenant, self.principal, self.plan, self.scopes)


ANONYMOUS = TenantContext(tenant="anonymous", principal="anonymous")
"""Everybody, where no `TenantResolver` is given."""
