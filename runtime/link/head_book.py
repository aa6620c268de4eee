"""`HeadBook`: what the heads of calls and responses are made of, so that what comes again and again is read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from .headers import Headers, split_headers
from .tenant_book import TenantBook

__all__ = ["MAX_KNOWN", "HeadBook"]

MAX_KNOWN: Final = 2048
"""Requests, and as many headers of responses."""
MAX_KNOWN_SIZE: Final = 2048
"""Bytes, written, of what is worth knowing."""

V = TypeVar("V")


class HeadBook:
    """One for each link: nothing of a tenant sits in module scope. Each of its three parts, full, begins anew.

    no-wrong-tenant: what is looked up by is the whole of what was written.
    """

    __slots__ = ("_headers", "_requests", "tenants")

    def __init__(self) -> None:
        self.tenants = TenantBook()
        self._headers: dict[bytes, Headers] = {}
        self._requests: dict[bytes, tuple[Any, ...]] = {}

    @property
    def known(self) -> int:
        """Heads that are known, of requests and of responses."""
        return len(self._headers) + len(self._requests)

    def headers(self, written: Any) -> Headers:
        """What `join_headers` has written, as a list of the caller's own.

        Raises:
            ValueError: It is nothing that it writes.
        """
        return [*(self._headers.get(written) or _learn(self._headers, written, split_headers))]

    def request(self, written: Any, read: Callable[[bytes, TenantBook], tuple[Any, ...]]) -> tuple[Any, ...]:
        """What `read` makes of `written`; the same object for the same bytes, so not to be changed.

        Raises:
            ValueError: `read` does, or `written` is no bytes.
        """
        known = self._requests.get(written)
        return known or _learn(self._requests, written, lambda written: read(written, self.tenants))


def _learn(known: dict[bytes, V], written: Any, read: Callable[[bytes], V]) -> V:
    if type(written) is not bytes:
        raise ValueError("a part of a head is no bytes")
    value = read(written)
    if len(written) <= MAX_KNOWN_SIZE:
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[written] = value
    return value
