"""The `WWW-Authenticate` header: what a client must bring (RFC 6750 section 3, RFC 9728 section 5.1)."""

from __future__ import annotations

from collections.abc import Iterable

from ...actors.session import TenantContext
from ...actors.session.scope import SCOPES_ARE, is_scope
from ..errors import ConfigurationError
from .tenants import Forbidden, Unauthenticated

__all__ = ["bearer_challenge", "checked_scopes", "invalid_token", "require_scopes", "with_parameter"]


def bearer_challenge(**parameters: str) -> str:
    """`Bearer error="invalid_token", ...` of values that hold neither quotes nor backslashes."""
    return ", ".join(f'{name}="{value}"' for name, value in parameters.items()).join(("Bearer ", "")).rstrip()


def with_parameter(challenge: str, name: str, value: str) -> str:
    """A Bearer `challenge` with one parameter more; one of another scheme, or that has it already, as it is."""
    scheme, _, parameters = challenge.partition(" ")
    if scheme.lower() != "bearer" or f"{name}=" in parameters:
        return challenge
    return f'{challenge}{"," if parameters else ""} {name}="{value}"'


def invalid_token(message: str) -> Unauthenticated:
    """The 401 for a credential that is there, and worth nothing. `message` goes to the client."""
    # RFC 6750 section 3: error_description has no quotes and backslashes. The name of a claim may have.
    plain = "".join(letter for letter in message if " " <= letter <= "~" and letter not in '"\\')
    return Unauthenticated(message, challenge=bearer_challenge(error="invalid_token", error_description=plain))


def checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """`scopes`, each of which RFC 6749 (section 3.3) takes for one.

    Raises:
        ConfigurationError: A text in place of a collection of them, or one that is no scope.
    """
    if isinstance(scopes, str):
        raise ConfigurationError(f"scopes is the text {scopes!r}; give a collection, such as ({scopes!r},)")
    listed = tuple(scopes)
    for scope in listed:
        if not is_scope(scope):
            raise ConfigurationError(f"{scope!r} is no scope: {SCOPES_ARE}")
    return listed


def require_scopes(context: TenantContext, required: tuple[str, ...]) -> TenantContext:
    """`context`, if its credential was given all of `required`.

    Raises:
        Forbidden: It was not. The challenge names all that are needed, so that a client can ask for them at once.
    """
    if required and not context.scopes.issuperset(required):
        scope = " ".join(required)
        raise Forbidden(
            f"the credential lacks a scope; needed: {scope}",
            challenge=bearer_challenge(error="insufficient_scope", scope=scope),
        )
    return context
