"""`ClaimNames`: which claims of a token say who its bearer is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from ...actors.session import TenantContext

__all__ = ["ClaimNames", "ClaimsRefused"]


class ClaimsRefused(ValueError):
    """A token's claims do not say who its bearer is; the message says what is missing, for the client."""


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Where a token says what, by a claim's whole name, as in `https://example.com/tenant`.

    A token whose tenant or principal is missing, empty or no text is worth nothing (401): to guess one would let two
    parties be taken for one.
    """

    tenant: str = "tenant"
    """Often `org_id` or `tid`."""
    principal: str = "sub"
    plan: str | None = "plan"
    """None: no claim tells it."""
    scopes: str | None = "scope"
    """Its value is a text with spaces between scopes, or a list of texts. Often `scp`."""

    def context(self, claims: Mapping[str, Any], *, expires: float | None) -> TenantContext:
        """Whom `claims` speak of.

        Raises:
            ClaimsRefused: They do not say, or not in a form that can be used.
        """
        plan = None if self.plan is None else claims.get(self.plan)
        if plan is not None and not isinstance(plan, str):
            raise ClaimsRefused(f"the claim {self.plan} must be text")
        try:
            return TenantContext(
                tenant=_text(claims, self.tenant),
                principal=_text(claims, self.principal),
                plan=plan,
                scopes=frozenset() if self.scopes is None else _scopes(claims, self.scopes),
                claims=MappingProxyType(dict(claims)),
                expires=expires,
            )
        except ClaimsRefused:
            raise
        except ValueError:
            raise ClaimsRefused(f"the claims {self.tenant} and {self.principal} cannot be used as they are") from None


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise ClaimsRefused(f"the claim {name} must be there, and be text")
    return value


def _scopes(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    value: object = claims.get(name)
    if value is None:
        return frozenset()
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list) and all(isinstance(scope, str) for scope in cast("list[object]", value)):
        return frozenset(cast("list[str]", value))
    raise ClaimsRefused(f"the claim {name} must be text, or a list of texts")
