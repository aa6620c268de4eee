"""`Commons`: what the servers of all nodes have in common, so that a call may meet any of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from mcp.server.context import ServerRequestContext
from mcp.server.request_state import (
    AESGCMRequestStateCodec,
    InvalidRequestState,
    RequestStateBoundary,
    RequestStateCodec,
    RequestStateSecurity,
    authenticated_principal,
)

from .tenant import TenantContext
from .tenant_bus import TenantBus

__all__ = ["ALONE", "Commons", "SharedSeal", "seal_together"]

_DEFAULT_TTL: Final = 600.0


class Commons(Protocol):
    """Given to `Servers` by a runtime that is one of many."""

    @property
    def seal(self) -> SharedSeal:
        """What `requestState` is sealed with at every node."""
        ...

    def bus_for(self, tenant: str) -> TenantBus:
        """The bus that carries list changes and resource updates of one tenant (or, empty, of all) to every node."""
        ...


class SharedSeal:
    """Seals `requestState` with keys that all nodes have; until it is given some, as the SDK does by default."""

    def __init__(self) -> None:
        self._codec: AESGCMRequestStateCodec | None = None

    def use(self, keys: Sequence[bytes]) -> None:
        """The first seals, all open: see `RequestStateSecurity` for how to change them without breaking a call.

        Raises:
            ValueError: No key, or one of less than 32 bytes.
        """
        self._codec = AESGCMRequestStateCodec(keys)

    def over(self, own: RequestStateCodec) -> RequestStateCodec:
        """A codec that seals with the shared keys, and opens what `own` has sealed too."""
        return _SharedCodec(self, own)

    @property
    def codec(self) -> AESGCMRequestStateCodec | None:
        return self._codec


ALONE: Final = SharedSeal()
"""The seal of a node that is one of none: it has no keys, so that each server seals with its own."""


class _SharedCodec:
    def __init__(self, seal: SharedSeal, own: RequestStateCodec) -> None:
        self._seal = seal
        self._own = own

    def seal(self, payload: bytes) -> str:
        return (self._seal.codec or self._own).seal(payload)

    def unseal(self, token: str) -> bytes:
        shared = self._seal.codec
        if shared is not None:
            try:
                return shared.unseal(token)
            except InvalidRequestState:
                pass
        return self._own.unseal(token)


def seal_together(middleware: list[Any], seal: SharedSeal) -> None:
    """Bind what the SDK's boundaries among `middleware` seal to the party that it was sealed for, and have the default
    one seal with the shared keys. Idempotent.

    Whatever else a policy of the author's own says (a codec, keys, a time to live, an audience) stays as it is: it is
    the same at every node that runs the same code. One that differs from the default in nothing but its key
    cannot be told from it: what it has sealed is still opened, new state is sealed with the cluster's.
    """
    for index, layer in enumerate(middleware):
        if type(layer) is not RequestStateBoundary:
            continue
        policy = layer._security  # pyright: ignore[reportPrivateUsage]
        if isinstance(policy.bind_principal, _Party):
            continue
        # no-wrong-tenant: one key seals for all tenants, so what it seals names its party, whatever else it names.
        bound = RequestStateSecurity(
            codec=seal.over(policy.codec) if _is_default(policy) else policy.codec,
            ttl=policy.ttl,
            bind_principal=_Party(policy.bind_principal),
            audience=policy.audience,
        )
        middleware[index] = RequestStateBoundary(bound, default_audience=layer._audience)  # pyright: ignore[reportPrivateUsage]


class _Party:
    """Whom a call is for: our tenant and principal, and what the author's policy (by default the SDK's) calls one."""

    def __init__(self, own: Callable[[ServerRequestContext[Any, Any]], str | None] | None) -> None:
        self._own = own

    def __call__(self, ctx: ServerRequestContext[Any, Any]) -> str:
        call: Any = cast("Any", ctx.session._request_outbound)._call  # pyright: ignore[reportPrivateUsage]
        tenant: TenantContext = call.tenant
        return json.dumps([tenant.tenant, tenant.principal, self._own(ctx) if self._own is not None else None])


def _is_default(policy: RequestStateSecurity) -> bool:
    codec: Any = policy.codec
    ring: dict[bytes, Any] = getattr(codec, "_ring", {})
    return (
        type(codec) is AESGCMRequestStateCodec
        and len(ring) == 1
        and policy.ttl == _DEFAULT_TTL
        and policy.audience is None
        and policy.bind_principal is authenticated_principal
    )
