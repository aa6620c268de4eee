"""`TenantResolver`: the seam where a credential becomes a `TenantContext`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

from starlette.requests import Request

from ...actors.session import TenantContext
from ...stores import UnderstudyError

__all__ = [
    "CredentialUnchecked",
    "Forbidden",
    "RemembersTenants",
    "TenantResolver",
    "Unauthenticated",
    "forget_tenant",
    "resolve_tenant",
    "resolved_tenant",
    "unexpired",
]

logger = logging.getLogger(__name__)


class Unauthenticated(UnderstudyError):
    """No credential, or one that is worth nothing: 401. `challenge` is the `WWW-Authenticate` header to send."""

    def __init__(self, message: str = "a valid credential is required", *, challenge: str = "Bearer") -> None:
        super().__init__(message)
        self.challenge = challenge


class Forbidden(UnderstudyError):
    """A valid credential that does not allow this: 403. `challenge`: the `WWW-Authenticate` header to send, if any."""

    def __init__(self, message: str = "the credential does not allow this", *, challenge: str | None = None) -> None:
        super().__init__(message)
        self.challenge = challenge


class CredentialUnchecked(UnderstudyError):
    """Whether the credential is good cannot be told now: 503. Not a verdict on it, so the client should keep it."""

    def __init__(self, message: str = "the credential cannot be checked now", *, retry_after: float = 1.0) -> None:
        """`retry_after`: seconds after which it is worth another try."""
        super().__init__(message)
        self.retry_after = retry_after


class TenantResolver(Protocol):
    """Who is asking, told from the credential of the request; called on every request, before the body is read.

    Any function `(request) -> TenantContext` fits, sync or async. Its answer must depend on nothing that a client
    can claim without proof.

    Raises:
        Unauthenticated: No credential, or a worthless one.
        Forbidden: A good credential that may not use this server.
        CredentialUnchecked: It cannot tell now, because something that it needs is out of reach.
    """

    def __call__(self, request: Request, /) -> TenantContext | Awaitable[TenantContext]: ...


@runtime_checkable
class RemembersTenants(Protocol):
    """A resolver that keeps what it has found out, and can be asked to find it out anew."""

    def forget(self, tenant: str | None, /) -> None:
        """Keep nothing of `tenant` any more; None: of anybody. Quick, and no refusal."""
        ...


def forget_tenant(resolver: object, tenant: str | None) -> None:
    """Have `resolver`, if it remembers anything, forget `tenant`; None: everybody."""
    if not isinstance(resolver, RemembersTenants):
        return
    try:
        resolver.forget(tenant)
    except Exception:
        logger.exception("a tenant resolver could not forget")


async def resolve_tenant(resolver: TenantResolver, request: Request, timeout: float | None = None) -> TenantContext:
    """What `resolver` says of `request`. `timeout`: seconds that it may take, if it is not done at once.

    Raises:
        Unauthenticated, Forbidden, CredentialUnchecked: As the resolver says.
        Unauthenticated: The context that it returned is past its end.
        TimeoutError: It took longer.
        TypeError: It returned something else than a `TenantContext`.
    """
    return await resolved_tenant(resolver(request), timeout)


async def resolved_tenant(
    resolved: TenantContext | Awaitable[TenantContext], timeout: float | None = None
) -> TenantContext:
    """The context that a resolver has returned, or an awaitable of it. As `resolve_tenant`."""
    context = resolved
    if type(resolved) is not TenantContext and inspect.isawaitable(resolved):
        async with asyncio.timeout(timeout):
            context = await resolved
    if not isinstance(context, TenantContext):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"the tenant resolver returned {type(context).__name__}; it must return a TenantContext")
    return unexpired(context)


def unexpired(context: TenantContext) -> TenantContext:
    """`context`, if it has not ended.

    Raises:
        Unauthenticated: `context.expires` has passed.
    """
    if context.expires is not None and context.expires <= time.time():
        message = "the credential has expired"
        challenge = f'Bearer error="invalid_token", error_description="{message}"'
        raise Unauthenticated(message, challenge=challenge)
    return context
