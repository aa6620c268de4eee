"""`redacted_result`, `redacted_error`: no secret leaves in what a tool says of its failure."""

from __future__ import annotations

import logging
from typing import Any

from mcp.shared.exceptions import MCPError

from .helpers import TenantHelpers

__all__ = ["redacted_error", "redacted_result"]

logger = logging.getLogger(__name__)


def redacted_result(helpers: TenantHelpers | None, result: dict[str, Any]) -> dict[str, Any]:
    """`result`, without known secrets if it is an error."""
    redactor = helpers.redactor if helpers is not None else None
    if redactor is None or not redactor.knows or not result.get("isError"):
        return result
    return redactor.redact_within(result)


def redacted_error(helpers: TenantHelpers | None, error: Exception) -> Exception:
    """`error`, or an `MCPError` in its place if it says a known secret, and then it is logged here (where it is blotted
    out as well)."""
    redactor = helpers.redactor if helpers is not None else None
    if redactor is None or not redactor.knows:
        return error
    try:
        said = str(error)
    except Exception:
        return error
    if isinstance(error, MCPError):
        told = error.error
        message, data = redactor.redact(told.message), redactor.redact_within(told.data)
        return error if message is told.message and data is told.data else MCPError(told.code, message, data)
    clean = redactor.redact(said)
    if clean is said:
        return error
    logger.error("a request handler raised", exc_info=error)
    return MCPError(0, clean)
