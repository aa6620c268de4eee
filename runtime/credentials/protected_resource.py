"""`ProtectedResource`: tells clients which authorization server gives the tokens that are taken here (RFC 9728)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Iterable
from typing import Any, Final, cast
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...actors.session import TenantContext
from ..errors import ConfigurationError
from ..wire.http import Send, answer
from .challenges import checked_scopes, require_scopes, with_parameter
from .tenants import Forbidden, TenantResolver, Unauthenticated, forget_tenant, unexpired

__all__ = ["ProtectedResource"]

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_HEADERS: Final = {
    "content-type": "application/json",
    "cache-control": "public, max-age=3600",
    # Clients that are web pages must be able to read it, and it says nothing about anybody.
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, OPTIONS",
    "access-control-allow-headers": "mcp-protocol-version",
}


class ProtectedResource:
    """A `TenantResolver` around another one: each 401 and 403 says where the metadata is, and the runtime serves it.

        Runtime(server, tenants=ProtectedResource(
            JwtTokens(...), url="https://mcp.example.com/mcp", authorization_servers=["https://auth.example.com"],
        ))

    The metadata stands at `/.well-known/oauth-protected-resource` and the path of `url`, beside the endpoint. An
    application that mounts the runtime deeper serves it itself: `routes=[*resource.routes, Mount(...)]`.
    """

    def __init__(
        self,
        tenants: TenantResolver,
        *,
        url: str,
        authorization_servers: Iterable[str],
        required_scopes: Iterable[str] = (),
        scopes_supported: Iterable[str] | None = None,
        name: str | None = None,
        documentation: str | None = None,
    ) -> None:
        """
        Args:
            tenants: Judges credentials.
            url: The endpoint as clients know it. Tokens should have it as their audience.
            authorization_servers: The issuers of tokens, by their URL.
            required_scopes: What each credential must have been given; 403 otherwise.
            scopes_supported: What can be given; None: `required_scopes`, if there are any.
            name: What users are shown.
            documentation: A page for developers.

        Raises:
            ConfigurationError: A URL is none, no authorization server is named, or a scope is none.
        """
        if isinstance(authorization_servers, str):
            raise ConfigurationError("authorization_servers is a text; give a list of URLs")
        servers = [_checked("authorization_servers", server) for server in authorization_servers]
        if not servers:
            raise ConfigurationError("authorization_servers is empty; name who gives tokens, or leave this out")
        self._tenants = tenants
        self._required = checked_scopes(required_scopes)
        supported = self._required if scopes_supported is None else checked_scopes(scopes_supported)
        parts = urlsplit(_checked("url", url))
        path = parts.path if parts.path != "/" else ""
        self.metadata_path: str = WELL_KNOWN + path
        """The path of the metadata, at the root of the host."""
        self.metadata_url: str = f"{parts.scheme}://{parts.netloc}{self.metadata_path}"
        """What a 401 names."""
        document: dict[str, Any] = {
            "resource": url,
            "authorization_servers": servers,
            "bearer_methods_supported": ["header"],
        }
        if supported:
            document["scopes_supported"] = list(supported)
        if name is not None:
            document["resource_name"] = name
        if documentation is not None:
            document["resource_documentation"] = _checked("documentation", documentation)
        self._document = json.dumps(document).encode()

    @property
    def inner(self) -> TenantResolver:
        """What judges credentials."""
        return self._tenants

    def __call__(self, request: Request) -> TenantContext | Awaitable[TenantContext]:
        """A `TenantResolver`: what the inner one says, its refusals with the metadata's URL."""
        try:
            resolved = self._tenants(request)
            return self._later(resolved) if inspect.isawaitable(resolved) else self._allowed(resolved)
        except (Unauthenticated, Forbidden) as error:
            self._point(error)
            raise

    async def _later(self, resolving: Awaitable[TenantContext]) -> TenantContext:
        try:
            return self._allowed(await resolving)
        except (Unauthenticated, Forbidden) as error:
            self._point(error)
            raise

    def _allowed(self, context: TenantContext) -> TenantContext:
        # What is no context at all is `resolve_tenant`'s to refuse.
        if not isinstance(context, TenantContext):  # pyright: ignore[reportUnnecessaryIsInstance]
            return context
        return require_scopes(unexpired(context), self._required)

    def _point(self, error: Unauthenticated | Forbidden) -> None:
        if error.challenge is None:
            return
        challenge = error.challenge
        if self._required and isinstance(error, Unauthenticated):
            challenge = with_parameter(challenge, "scope", " ".join(self._required))
        error.challenge = with_parameter(challenge, "resource_metadata", self.metadata_url)

    def forget(self, tenant: str | None) -> None:
        """As `RemembersTenants`, where the inner resolver is one."""
        forget_tenant(self._tenants, tenant)

    async def serve(self, method: str, send: Send) -> None:
        """Answer a request for the metadata."""
        headers = tuple((name.encode(), value.encode()) for name, value in _HEADERS.items())
        if method == "OPTIONS":
            await answer(send, 204, headers=headers)
        elif method in _METHODS:
            await answer(send, 200, self._document, headers=headers)
        else:
            allowed = ", ".join(_METHODS).encode()
            await answer(send, 405, b"method not allowed\n", headers=((b"allow", allowed),))

    @property
    def routes(self) -> list[Route]:
        """The metadata as Starlette routes, for an application that mounts the runtime below its root."""

        async def metadata(request: Request) -> Response:
            return Response(b"" if request.method == "OPTIONS" else self._document, headers=_HEADERS)

        return [Route(self.metadata_path, metadata, methods=list(_METHODS))]

    def stats(self) -> dict[str, int | float]:
        """The inner resolver's plain numbers."""
        stats = getattr(self._tenants, "stats", None)
        return cast("dict[str, int | float]", stats()) if callable(stats) else {}


def _checked(name: str, url: str) -> str:
    parts = urlsplit(url) if url.isascii() and url.isprintable() and not set(url) & set(' "\\') else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or parts.query:
        raise ConfigurationError(f"{name} has {url[:128]!r}; it must be an http(s) URL without query and fragment")
    return url
