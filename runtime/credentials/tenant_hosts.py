"""`by_host` and `ByHost`: a tenant for each host name, as `acme.example.com`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final, cast

from starlette.requests import Request

from ...actors.session import TenantContext
from ..errors import ConfigurationError
from .tenants import Forbidden, TenantResolver, forget_tenant

__all__ = ["ByHost", "by_host"]

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PLACE: Final = "{tenant}"


class ByHost:
    """A `TenantResolver` that holds each credential to the host of its tenant. Made by `by_host`."""

    def __init__(
        self, resolver: TenantResolver | None, pattern: str, names: Mapping[str, str] | None, trusted: bool
    ) -> None:
        before, place, after = pattern.lower().partition(_PLACE)
        rest = before + after
        if not place or _PLACE in after or not after.startswith(".") or not re.fullmatch(r"[a-z0-9.-]*", rest):
            raise ConfigurationError(
                f'pattern is {pattern!r}; it must be a host name with {_PLACE} in it once, as "{_PLACE}.example.com"'
            )
        if resolver is None and not trusted:
            raise ConfigurationError(
                "without a resolver whoever names a host is its tenant: say trusted=True if something in front of this "
                "server sees to it who may, or give a resolver, which is asked for the credential"
            )
        if resolver is not None and trusted:
            raise ConfigurationError("trusted is for servers without credentials, and here is a resolver: leave it out")
        self._resolver = resolver
        self._before, self._after = before, after
        self._names = None if names is None else {label.lower(): tenant for label, tenant in names.items()}

    @property
    def inner(self) -> TenantResolver | None:
        """What is asked for the credential."""
        return self._resolver

    @property
    def allowed_host(self) -> str:
        """What `allowed_hosts` needs for it: any label in the tenant's place."""
        return f"{self._before}*{self._after}"

    def tenant_of(self, host: str) -> str | None:
        """The tenant whose host this is, with a port or without; None: nobody's."""
        name, colon, port = host.lower().rpartition(":")
        if not colon or not port.isdecimal():
            name = host.lower()
        before, after = self._before, self._after
        if not name.startswith(before) or not name.endswith(after) or len(name) <= len(before) + len(after):
            return None
        label = name[len(before) : len(name) - len(after)]
        if _LABEL.fullmatch(label) is None:
            return None
        return label if self._names is None else self._names.get(label)

    def __call__(self, request: Request) -> TenantContext | Awaitable[TenantContext]:
        """A `TenantResolver`."""
        tenant = self.tenant_of(request.headers.get("host", ""))
        if self._resolver is None:
            if tenant is None:
                raise Forbidden(_NOBODYS)
            return TenantContext(tenant, "anonymous")
        # Asked first, so that who has no credential is not told which hosts there are.
        resolved = self._resolver(request)
        return self._later(resolved, tenant) if inspect.isawaitable(resolved) else _checked(resolved, tenant)

    async def _later(self, resolving: Awaitable[TenantContext], tenant: str | None) -> TenantContext:
        return _checked(await resolving, tenant)

    def forget(self, tenant: str | None) -> None:
        """As `RemembersTenants`, where the inner resolver is one."""
        forget_tenant(self._resolver, tenant)

    def stats(self) -> dict[str, int | float]:
        """The inner resolver's plain numbers."""
        stats = getattr(self._resolver, "stats", None)
        return cast("dict[str, int | float]", stats()) if callable(stats) else {}


_NOBODYS: Final = "the credential is not for this host"


def _checked(context: Any, tenant: str | None) -> TenantContext:
    # What is no context at all is `resolve_tenant`'s to refuse.
    if isinstance(context, TenantContext) and context.tenant != tenant:
        raise Forbidden(_NOBODYS)
    return context


def by_host(
    resolver: TenantResolver | None,
    *,
    pattern: str,
    names: Mapping[str, str] | None = None,
    trusted: bool = False,
) -> ByHost:
    """A resolver for tenants that have a host name each.

        Runtime(server, tenants=by_host(ApiKeys(...), pattern="{tenant}.example.com"), allowed_hosts=["*.example.com"])

    The credential says who is asking, as ever; at the host of another tenant, or at none's, it is a 403. Put it inside
    of `ProtectedResource`, not around it.

    Args:
        resolver: Tells from the credential who is asking. None: nobody has one, and the host alone names the tenant,
            with "anonymous" as the principal.
        pattern: The host names, with `{tenant}` in the place of one label. Letter case does not count, nor does a port.
        names: The tenant of each label; others are nobody's. None: the label, in small letters, is the tenant.
        trusted: For `resolver=None`: whatever stands in front of this server lets each client reach its own host only.

    Raises:
        ConfigurationError: `pattern` is none; or neither a resolver nor `trusted` is given, or both.
    """
    return ByHost(resolver, pattern, names, trusted)
