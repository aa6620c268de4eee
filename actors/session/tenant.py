"""`TenantContext`: who a conversation belongs to and what it may use."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...stores.arguments import checked_text
from .tenants.cache import TenantCache
from .tenants.errors import NotOffered
from .tenants.files import TenantFiles
from .tenants.running import helpers_for
from .tenants.secret import Secret
from .tenants.secrets import TenantSecrets
from .tenants.uris import join_uri, parts_of

__all__ = ["ANONYMOUS", "TenantContext"]

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantContext:
    """What a credential says about its bearer; resolved anew on every request, never taken from the client's word.

    Two contexts with the same `tenant` and `principal` are the same party: a session opened by one answers the other.
    """

    tenant: str
    """The customer: sessions, keys, metrics and log lines carry it."""
    principal: str
    """Who within the tenant (a user, an API key's name). A session answers only to the principal that opened it."""
    plan: str | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=lambda: _NO_CLAIMS, compare=False)
    expires: float | None = None
    """Unix time in seconds after which the credential is worth nothing; None: no end known."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: `tenant` or `principal` is empty, or nothing that a store can keep; a claim is a `Secret`; or
                something is of another type than it says.
        """
        for name, text in (("tenant", self.tenant), ("principal", self.principal)):
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"{name} is {text!r:.80}; it must be text")
            if not checked_text(name, text):
                raise ValueError(f"{name} must not be empty")
        if type(self.scopes) is not frozenset:
            # no-wrong-tenant: in the text "read billing-none" the scope "billing" would be found, or single letters.
            if isinstance(self.scopes, str):
                raise ValueError(f"scopes is the text {self.scopes!r:.80}; it must be a set of them, as by split()")
            object.__setattr__(self, "scopes", frozenset(self.scopes))
        if self.plan is not None and not isinstance(self.plan, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"plan is {self.plan!r:.80}; it must be text, or None")
        if self.expires is not None and not isinstance(self.expires, float | int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"expires is {self.expires!r:.80}; it must be Unix time in seconds, or None")
        for name, claim in self.claims.items() if self.claims else ():
            if isinstance(claim, Secret):
                # Claims cross between nodes with each request that is forwarded.
                raise ValueError(
                    f"the claim {name!r} is a Secret, and claims are sent to other nodes: give it as Runtime(secrets=)"
                )

    @property
    def surface(self) -> tuple[str, str, str | None, frozenset[str]]:
        """What a server factory may depend on: contexts of one surface can share what is built for it."""
        return (self.tenant, self.principal, self.plan, self.scopes)

    # What its calls have, and nobody else's: each refuses to work in another party's call.

    @property
    def cache(self) -> TenantCache:
        """What the tenant's tools remember at this node for a while."""
        helpers_for(self)
        return TenantCache(self)

    @property
    def files(self) -> TenantFiles:
        """The tenant's folder, which paths cannot leave: `Runtime(files=)`."""
        helpers_for(self)
        return TenantFiles(self)

    @property
    def secrets(self) -> TenantSecrets:
        """Credentials for calls to other services: `Runtime(secrets=)`."""
        helpers_for(self)
        return TenantSecrets(self)

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """A transaction in the tenant's part of the database that `Runtime(database=)` names: committed when the block
        ends, rolled back when it raises or is cancelled. With PostgreSQL it is an `asyncpg.Connection`.

            async with current_tenant().connection() as connection:
                await connection.fetch("SELECT * FROM orders")

        Raises:
            NotOffered: The runtime was given no database.
            WrongTenant, NoCall: The running call is another party's; none is running.
            DatabaseBusy, DatabaseUnavailable: On entering: no connection became free in time; the server is silent.
        """
        database = helpers_for(self).database
        if database is None:
            raise NotOffered("connection()", "a database, `Runtime(..., database=RowLevelSecurity(url))` or its like")
        return database.connection(self)

    def uri(self, *segments: str | int, scheme: str = "resource") -> str:
        """The URI of a resource of the tenant's, all of it escaped: `resource://tenant-space/acme/orders/42`.
        To anybody of another tenant the runtime answers that it is unknown.

        Raises:
            URIRefused: A segment is empty or only dots, the scheme is none, or it is too long.
        """
        return join_uri(self.tenant, segments, scheme)

    def uri_segments(self, uri: str) -> tuple[str, ...]:
        """What `uri` was called with, of a URI of the tenant's, as texts.

        Raises:
            ResourceNotFoundError: Another tenant's, or none that `uri` makes; the client is told that it is unknown.
        """
        return parts_of(uri, self.tenant)


ANONYMOUS = TenantContext(tenant="anonymous", principal="anonymous")
"""Everybody, where no `TenantResolver` is given."""
