"""`tenant_uri`: resource URIs that say whose they are, and `is_foreign`, which tells those of others."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from mcp.server.mcpserver.exceptions import ResourceNotFoundError

__all__ = ["AUTHORITY", "URIRefused", "is_foreign", "join_uri", "parts_of", "tenants_variable", "uri_template"]

from .errors import TenantHelperError

AUTHORITY: Final = "tenant-space"
"""What stands where other URIs have a host: after it comes the tenant."""

LONGEST: Final = 8192

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_AUTHORITY: Final = re.compile(r"[^:/?#]*://([^/?#]*)")
_FOR_ALL: Final = re.compile(rf"{_SCHEME.pattern}://{AUTHORITY}/\{{(\w+)\}}/")
_TEMPLATE: Final = re.compile(r"[A-Za-z0-9._~{}+*/-]+")


class URIRefused(TenantHelperError, ValueError):
    """What cannot be part of a tenant's URI."""


def join_uri(tenant: str, segments: tuple[str | int, ...], scheme: str) -> str:
    """`scheme://tenant-space/<tenant>/<segments>`, each escaped whole, so that no other segments make the same URI.

    Raises:
        URIRefused: A segment is empty or only dots, which clients leave out; the scheme is none; it is too long.
    """
    if _SCHEME.fullmatch(scheme) is None:
        raise URIRefused(f"the scheme {scheme[:64]!r} is none: lower-case letters, digits, +, - and . after a letter")
    if not segments:
        raise URIRefused("a tenant's URI has a segment at least, such as tenant_uri('orders', 42)")
    parts = [tenant, *(str(segment) if isinstance(segment, int) else segment for segment in segments)]
    uri = f"{scheme}://{AUTHORITY}/{'/'.join(map(_escaped, parts))}"
    if len(uri) > LONGEST:
        raise URIRefused(f"a tenant's URI of {len(uri)} characters is too long; at most {LONGEST} are possible")
    return uri


def _escaped(part: str) -> str:
    if not isinstance(part, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise URIRefused(f"a segment of a tenant's URI is a text or a whole number, not a {type(part).__name__}")
    # Clients resolve dots, escaped or not, before they send a URI.
    if not part or part in (".", ".."):
        raise URIRefused(f"{part!r} cannot be a segment of a tenant's URI")
    try:
        return quote(part, safe="")
    except UnicodeEncodeError:
        raise URIRefused("a segment of a tenant's URI holds a lone surrogate, which is no text") from None


def parts_of(uri: str, tenant: str) -> tuple[str, ...]:
    """The segments of a URI of `tenant`'s, unescaped.

    Raises:
        ResourceNotFoundError: Another tenant's, or none that `join_uri` makes; one answer to both.
    """
    parts = _split(uri)
    if parts is None or parts[0] != tenant:
        raise ResourceNotFoundError(f"Unknown resource: {uri}")
    return parts[1:]


def is_foreign(uri: object, tenant: str) -> bool:
    """Whether `uri` claims to be some tenant's and is not `tenant`'s, spelled as `join_uri` spells it."""
    if not isinstance(uri, str):
        return False
    found = _AUTHORITY.match(uri)
    if found is None or unquote(found[1]).casefold().rpartition("@")[2].partition(":")[0] != AUTHORITY:
        return False
    parts = _split(uri)
    return parts is None or parts[0] != tenant


def tenants_variable(uri: object) -> str | None:
    """What stands for the tenant in a template of the URIs of all tenants; None if `uri` is none."""
    found = _FOR_ALL.match(uri) if isinstance(uri, str) else None
    return None if found is None else found[1]


def _split(uri: str) -> tuple[str, ...] | None:
    scheme, mark, path = uri.partition(f"://{AUTHORITY}/")
    if not mark or len(uri) > LONGEST:
        return None
    try:
        tenant, *segments = (unquote(part, errors="strict") for part in path.split("/"))
        # A URI that can be spelled in two ways is two keys of whoever keeps things by URI: only one way counts.
        return (tenant, *segments) if join_uri(tenant, tuple(segments), scheme) == uri else None
    except (UnicodeDecodeError, URIRefused):
        return None


def uri_template(path: str, scheme: str) -> str:
    """`scheme://tenant-space/{tenant}/path`, a template of the URIs of all tenants: the function gets `tenant` too.

    Raises:
        URIRefused: `path` or the scheme cannot be part of one.
    """
    if _SCHEME.fullmatch(scheme) is None or _TEMPLATE.fullmatch(path) is None or path.startswith("/"):
        raise URIRefused(f"{scheme[:32]!r} and {path[:64]!r} make no template, such as 'orders/{{number}}'")
    return f"{scheme}://{AUTHORITY}/{{tenant}}/{path}"
