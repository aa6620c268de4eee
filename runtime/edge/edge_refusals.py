"""What the edge answers where it cannot be told who asks, or what was sent cannot be read."""

from __future__ import annotations

import logging
from typing import Final

from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR

from ...actors.session.wire import SERVER_BUSY, Refusal
from ..credentials.tenants import CredentialUnchecked, Forbidden, Unauthenticated
from ..wire.http import BodyTooLarge, BodyTooSlow, EncodedBody

__all__ = ["RESOLVER_TIMEOUT", "unidentified", "unreadable"]

logger = logging.getLogger(__name__)

RESOLVER_TIMEOUT: Final = 10.0
"""Seconds that the tenant resolver may take for one request."""

_Header = tuple[bytes, bytes]


def unidentified(error: BaseException) -> tuple[Refusal, tuple[_Header, ...]]:
    """The answer, with its headers, where resolving the tenant ended in `error`. What is no verdict is logged."""
    if isinstance(error, Unauthenticated | Forbidden):
        status = 401 if isinstance(error, Unauthenticated) else 403
        headers = () if error.challenge is None else ((b"www-authenticate", _header_line(error.challenge)),)
        return Refusal(INVALID_REQUEST, str(error), status=status), headers
    if isinstance(error, CredentialUnchecked):
        return Refusal(SERVER_BUSY, str(error), None, 503, error.retry_after), ()
    if isinstance(error, TimeoutError):
        logger.warning("the tenant resolver did not answer within %g s", RESOLVER_TIMEOUT)
        return Refusal(SERVER_BUSY, "The credential could not be checked in time", None, 503, 1.0), ()
    # Whatever it is, the answer must not be taken for a verdict on the credential.
    logger.error("the tenant resolver failed", exc_info=error)
    return Refusal(INTERNAL_ERROR, "The credential could not be checked", status=500), ()


def unreadable(error: BodyTooLarge | BodyTooSlow | EncodedBody) -> tuple[Refusal, tuple[_Header, ...]]:
    """The answer, with its headers, where `error` is why a body was not read."""
    if isinstance(error, BodyTooLarge):
        return Refusal(INVALID_REQUEST, "Request body too large", status=413), ()
    if isinstance(error, EncodedBody):
        text = "Unsupported Media Type: send the body without Content-Encoding"
        return Refusal(INVALID_REQUEST, text, status=415), ((b"accept-encoding", b"identity"),)
    return Refusal(PARSE_ERROR, "Request body did not arrive in time", status=408), ()


def _header_line(text: str) -> bytes:
    return text.encode("latin-1", "replace")
