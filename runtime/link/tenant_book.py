"""`TenantBook`: tenant contexts and their packed form, so that the ones in use are packed and unpacked once."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, NoReturn

from ...actors.packing import pack, strict_packer, unpack
from ...actors.session.tenant import TenantContext
from .errors import Unsendable

__all__ = ["TenantBook"]

MAX_KNOWN: Final = 1024
MAX_KNOWN_SIZE: Final = 2048
"""Packed bytes of a context that is worth knowing."""


def _refuse(value: Any) -> NoReturn:
    raise Unsendable(f"a claim of the tenant holds a {type(value).__name__}; claims that cross nodes are made of JSON")


_pack_claims = strict_packer(_refuse)


class TenantBook:
    """One for each link: tenant data never sits in module scope. Holds 1024 contexts each way; full, it begins anew.

    no-wrong-tenant: what is looked up by is the whole of a context, its claims included.
    """

    __slots__ = ("_packed", "_unpacked")

    def __init__(self) -> None:
        self._packed: dict[int, tuple[TenantContext, bytes]] = {}
        """By identity: an equal context may have other claims."""
        self._unpacked: dict[bytes, TenantContext] = {}

    def pack(self, tenant: TenantContext) -> bytes:
        """`tenant` as bytes.

        Raises:
            Unsendable: Its claims hold what msgpack does not carry.
        """
        known = self._packed.get(id(tenant))
        if known is not None and known[0] is tenant:
            return known[1]
        try:
            claims = _pack_claims(dict(tenant.claims)) if tenant.claims else b""
            expires = None if tenant.expires is None else float(tenant.expires)
            packed = pack((tenant.tenant, tenant.principal, tenant.plan, sorted(tenant.scopes), claims, expires))
        except Unsendable:
            raise
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unsendable(f"the tenant of a call cannot be packed: {error}") from error
        if not claims and len(packed) <= MAX_KNOWN_SIZE:
            # Claims are a mapping that somebody may change; the rest of a context stays as it is.
            if len(self._packed) >= MAX_KNOWN:
                self._packed.clear()
            self._packed[id(tenant)] = (tenant, packed)
        return packed

    def unpack(self, packed: Any) -> TenantContext:
        """The inverse of `pack`. Contexts are immutable, and those of equal bytes may be the same object.

        Raises:
            ValueError: It is no tenant.
        """
        if type(packed) is not bytes:
            raise ValueError("the tenant of a call is not packed")
        known = self._unpacked.get(packed)
        if known is not None:
            return known
        tenant = _unpack(packed)
        if len(packed) <= MAX_KNOWN_SIZE:
            if len(self._unpacked) >= MAX_KNOWN:
                self._unpacked.clear()
            self._unpacked[packed] = tenant
        return tenant


def _unpack(packed: bytes) -> TenantContext:
    fields: Any = unpack(packed)
    if fields.__class__ is not list or len(fields) != 6:
        raise ValueError("the tenant of a call has another shape")
    tenant, principal, plan, scopes, claims, expires = fields
    if (
        scopes.__class__ is not list
        or any(type(text) is not str for text in (tenant, principal, *scopes))
        or not isinstance(plan, str | None)
        or type(claims) is not bytes
        or not isinstance(expires, float | None)
    ):
        raise ValueError("a field of the tenant of a call is of another type")
    claimed: Any = unpack(claims) if claims else {}
    if claimed.__class__ is not dict:
        raise ValueError("the claims of a call are no map")
    return TenantContext(tenant, principal, plan, frozenset(scopes), MappingProxyType(claimed), expires)
