"""`CredentialHeader`: the credential of a request, from the header that carries it."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from ..errors import ConfigurationError
from .challenges import invalid_token
from .tenants import Unauthenticated

__all__ = ["CredentialHeader"]

_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
_AUTHORIZATION: Final = b"authorization"


class CredentialHeader:
    """Reads `Authorization: Bearer <credential>`, or a header of its own whose whole value is the credential."""

    __slots__ = ("_name", "_wanted")

    def __init__(self, name: str = "authorization") -> None:
        """
        Raises:
            ConfigurationError: `name` is no name of a header.
        """
        if _NAME.fullmatch(name.lower()) is None:
            raise ConfigurationError(f"header is {name[:128]!r}; it must be the name of a header, such as x-api-key")
        self._name = name.lower().encode()
        # A 401 must carry a challenge (RFC 9110 section 15.5.2); for another header no scheme is registered.
        self._wanted = "Bearer" if self._name == _AUTHORIZATION else f'ApiKey header="{name.lower()}"'

    def read(self, request: Request) -> bytes:
        """The credential, as it came.

        Raises:
            Unauthenticated: There is none, it came twice, or the header holds something else.
        """
        name = self._name
        found: bytes | None = None
        for header, value in request.scope["headers"]:
            if header == name:
                if found is not None:
                    raise self.refusal("the credential came more than once")
                found = value
        if found is None:
            raise Unauthenticated(challenge=self._wanted)
        if name == _AUTHORIZATION:
            scheme, _, found = found.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Unauthenticated("the Authorization header must be: Bearer <credential>", challenge=self._wanted)
        found = found.strip(b" \t")
        if not found or b" " in found:
            raise self.refusal("the credential is malformed")
        return found

    def refusal(self, message: str) -> Unauthenticated:
        """The 401 for a credential that came in this header and is worth nothing; `message` goes to the client."""
        return (
            invalid_token(message) if self._name == _AUTHORIZATION else Unauthenticated(message, challenge=self._wanted)
        )
