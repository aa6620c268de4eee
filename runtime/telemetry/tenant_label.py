"""How a tenant is called in metrics: by its id, made harmless."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["DEFAULT_LABELS", "MOST_LABELS", "NOBODY", "OTHER", "tenant_label"]

DEFAULT_LABELS: Final = 100
MOST_LABELS: Final = 1000
"""Tenants with a label of their own: each has some ten series."""

OTHER: Final = "other"
"""All tenants that have no label of their own."""
NOBODY: Final = "none"
"""Requests that were refused before it was known who asks."""
LONGEST: Final = 64

_MARKED = re.compile(r".*~[0-9a-f]{12}", re.DOTALL)


def tenant_label(tenant: str) -> str:
    """The label of the tenant with this id: the id itself where that is short, printable and means nothing else;
    otherwise what can be shown of it, and after a `~` the beginning of its hash, so that no two tenants share one.
    """
    if tenant.isprintable() and len(tenant) <= LONGEST and tenant not in (OTHER, NOBODY) and not _MARKED.match(tenant):
        return tenant
    shown = "".join(letter if letter.isprintable() else "?" for letter in tenant[:LONGEST])
    return f"{shown}~{hashlib.sha256(tenant.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
