"""`Address`: what names one actor in the whole cluster."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from .errors import AddressError

__all__ = ["Address"]

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ID = re.compile(r"[\x21-\x7e]{1,128}")

ID_ENTROPY_BYTES = 24
"""Randomness of a new id: 192 bits, above the 128 that DESIGN.md and the MCP security practices ask for."""


class Address(NamedTuple):
    """The kind of an actor and its id: the key of its record, its directory entry and its mailbox.

    A tuple, because an address is hashed on every request and a tuple hashes in C.
    """

    kind: str
    id: str

    @classmethod
    def new(cls, kind: str) -> Address:
        """A fresh address of `kind`: 32 URL-safe characters, unguessable."""
        return cls.checked(kind, secrets.token_urlsafe(ID_ENTROPY_BYTES))

    @classmethod
    def checked(cls, kind: str, id: str) -> Address:
        """An address from untrusted text.

        Raises:
            AddressError: `kind` is not a short lower-case word, or `id` is not 1 to 128 visible ASCII characters.
        """
        if _KIND.fullmatch(kind) is None:
            raise AddressError(f"actor kind {kind[:64]!r} must match {_KIND.pattern}")
        if _ID.fullmatch(id) is None:
            raise AddressError(f"actor id {id[:160]!r} must be 1 to 128 visible ASCII characters")
        return cls(kind, id)

    @classmethod
    def parse(cls, text: str) -> Address:
        """The inverse of `str(address)`.

        Raises:
            AddressError: `text` is not `kind/id`.
        """
        kind, slash, id = text.partition("/")
        if not slash:
            raise AddressError(f"address {text[:160]!r} must have the form kind/id")
        return cls.checked(kind, id)

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"
