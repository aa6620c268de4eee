"""`TenantResolver`: the seam where a credential becomes a `TenantContext`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Protocol

from starlette.requests import Request

from ..actors.session import TenantContext
from ..stores import UnderstudyError

__all__ = ["Forbidden", "TenantResolver", "Unauthenticated", "resolve_tenant"]


class Unauthenticated(UnderstudyError):
    """No credential, or one that is worth nothing: 401. `challenge` is the `WWW-Authenticate` header to send."""

    def __init__(self, message: str = "a valid credential is required", *, challenge: str = "Bearer") -> None:
        super().__init__(message)
        self.challenge = challenge


class Forbidden(UnderstudyError):
    """A valid credential that does not allow this: 403."""


class TenantResolver(Protocol):
    """Who is asking, told from the credential of the request; called on every request, before the body is read.

    Any function `(request) -> TenantContext` fits, sync or async. Its answer must depend on nothing that a client
    can claim without proof.

    Raises:
        Unauthenticated: No credential, or a worthless one.
        Forbidden: A good credential that may not use this server.
    """

    def __call__(self, request: Request, /) -> TenantContext | Awaitable[TenantContext]: ...


async def resolve_tenant(resolver: TenantResolver, request: Request) -> TenantContext:
    """What `resolver` says of `request`.

    Raises:
        Unauthenticated, Forbidden: As the resolver says.
        TypeError: It returned something else than a `TenantContext`.
    """
    resolved = resolver(request)
    context = await resolved if inspect.isawaitable(resolved) else resolved
    if not isinstance(context, TenantContext):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"the tenant resolver returned {type(context).__name__}; it must return a TenantContext")
    return context
