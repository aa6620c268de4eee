"""`ApiKey`: one static API key, kept as its hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Self

from ...actors.session import TenantContext
from ...stores import UnderstudyError

__all__ = ["LONGEST", "SHORTEST", "ApiKey", "ApiKeyError", "new_api_key"]

PREFIX: Final = "understudy_"
"""By which a leaked key is found: secret scanners look for fixed beginnings."""
SHORTEST: Final = 32
LONGEST: Final = 512

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ApiKeyError(UnderstudyError, ValueError):
    """An API key, or a list of them, that cannot be used. Never repeats what may be a key."""


def new_api_key() -> str:
    """A key with 256 random bits. Give it to its bearer, and keep `ApiKey.of(key, ...).sha256` alone."""
    return PREFIX + secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: its hash, and whom it stands for.

    Plain SHA-256 is enough, and a slow hash would be wrong. Salt and stretching protect secrets that can be guessed;
    a key of 256 random bits cannot be, and each request would pay for the stretching.
    """

    sha256: str
    """Of the whole key, in lower-case hexadecimal."""
    context: TenantContext
    """`context.expires` is the key's own end."""
    revoked: bool = False
    _told: TenantContext = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """
        Raises:
            ApiKeyError: `sha256` is no such hash, or `context` no `TenantContext`.
        """
        if _DIGEST.fullmatch(self.sha256) is None:
            # Not repeated: it may be the key itself.
            raise ApiKeyError("sha256 must be 64 lower-case hexadecimal digits: the hash of a key, not the key")
        if not isinstance(self.context, TenantContext):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ApiKeyError(f"a key is for a TenantContext, and not for {self.context!r:.80}")
        claims: dict[str, Any] = {"api_key": self.sha256[:12], **self.context.claims}
        object.__setattr__(self, "_told", replace(self.context, claims=MappingProxyType(claims)))

    @classmethod
    def of(cls, key: str, context: TenantContext, *, revoked: bool = False) -> Self:
        """The entry for a key in plain text, which is not kept.

        Raises:
            ApiKeyError: It has fewer than 32 characters, more than 512, or some that a header cannot carry.
        """
        if not SHORTEST <= len(key) <= LONGEST or not key.isascii() or not key.isprintable() or " " in key:
            raise ApiKeyError(
                f"a key must have {SHORTEST} to {LONGEST} characters of printable ASCII without spaces; this one has "
                f"{len(key)} (`understudy key new` makes good ones)"
            )
        return cls(hashlib.sha256(key.encode()).hexdigest(), context, revoked)

    @property
    def told(self) -> TenantContext:
        """`context`, with the beginning of the hash as the claim `api_key`: it tells two keys of one party apart."""
        return self._told
