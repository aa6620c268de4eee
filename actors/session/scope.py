"""What is a scope, of a credential or of a requirement (RFC 6749 section 3.3)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["SCOPES_ARE", "is_scope"]

SCOPES_ARE: Final = "printable ASCII without spaces, quotes and backslashes"

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


def is_scope(value: object) -> bool:
    """Whether it is one, as `SCOPES_ARE`, of 256 letters at most."""
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None
