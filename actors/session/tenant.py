"""`TenantContext`: who a conversation belongs to and what it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["ANONYMOUS", "TenantContext"]

_LONGEST = 1024
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
            ValueError: `tenant` or `principal` is empty, longer than 1,024 characters, or no plain text.
        """
        for name, text in (("tenant", self.tenant), ("principal", self.principal)):
            plain = text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
            if not 0 < len(text) <= _LONGEST or "\0" in text or not plain:
                raise ValueError(
                    f"{name} {text[:64]!r} must be 1 to {_LONGEST} characters of text, without NUL and lone surrogates"
                )

    @property
    def surface(self) -> tuple[str, str, str | None, frozenset[str]]:
        """What a server factory may depend on: contexts of one surface can share what is built for it."""
        return (self.tenant, self.principal, self.plan, self.scopes)


ANONYMOUS = TenantContext(tenant="anonymous", principal="anonymous")
"""Everybody, where no `TenantResolver` is given."""
