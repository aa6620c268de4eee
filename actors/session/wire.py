"""The one place that says what an exception looks like to the client."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Final, NamedTuple, cast

import pydantic_core
from mcp.server.streamable_http import REQUEST_CANCELLED
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS
from mcp.shared.jsonrpc_dispatcher import handler_exception_to_error_data
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, RequestId

from ...stores import StoreError, UnderstudyError
from ..errors import (
    ActorEnded,
    ActorNotFound,
    ActorUnavailable,
    DeadlineExceeded,
    Elsewhere,
    MailboxFull,
    NodeDraining,
    OwnershipLost,
    RegistryFull,
    SnapshotError,
    SnapshotTooNew,
)
from .errors import DuplicateRequest, ForeignSession, LimitExceeded, RequestCancelled, SessionError

__all__ = [
    "OUTCOME_UNKNOWN",
    "SERVER_BUSY",
    "SESSION_NOT_FOUND",
    "Refusal",
    "encode",
    "error_message",
    "refusal_of",
    "result_message",
]

logger = logging.getLogger(__name__)

SERVER_BUSY = -32000
SESSION_NOT_FOUND = -32001
_MAX_DEPTH: Final = 250


class Refusal(NamedTuple):
    """A JSON-RPC error and, where it can still be chosen, the HTTP status to send it with."""

    code: int
    message: str
    data: Any = None
    status: int = 200
    retry_after: float | None = None
    anonymous: bool = False
    """Send it without the request's id: the id belongs to another request."""


NOT_FOUND = Refusal(SESSION_NOT_FOUND, "Session not found", status=404)
"""One wording for unknown, expired, deleted and another principal's: they must not be told apart."""

OUTCOME_UNKNOWN = Refusal(
    SERVER_BUSY,
    "Whether the call ran is not known, because its node could not be reached any more; look before you repeat it",
    {"outcome": "unknown"},
    503,
    1.0,
)
"""never-run-twice: what the client of a call is told that may have run at a node that is gone."""


def refusal_of(error: BaseException, *, modern: bool) -> Refusal:
    """What the client is told of `error`, in its era. Anything unforeseen is logged here, once."""
    match error:
        case MCPError():
            status = ERROR_CODE_HTTP_STATUS.get(error.error.code, 200) if modern else 200
            return Refusal(error.error.code, error.error.message, error.error.data, status)
        case ActorNotFound() | ForeignSession() | ActorEnded():
            return NOT_FOUND
        case RequestCancelled():
            return Refusal(REQUEST_CANCELLED, str(error))
        case DuplicateRequest():
            return Refusal(INVALID_REQUEST, str(error), status=400, anonymous=True)
        case MailboxFull():
            _warn(error)
            return Refusal(SERVER_BUSY, "Too many requests wait for this session", None, 429, error.retry_after)
        case NodeDraining():
            return Refusal(SERVER_BUSY, "The server takes no more sessions now", None, 503, error.retry_after)
        case RegistryFull():
            _warn(error)
            return Refusal(SERVER_BUSY, "The server takes no more sessions now", None, 503, error.retry_after)
        case ActorUnavailable() if error.outcome_unknown:
            _warn(error)
            data = {"outcome": "unknown"}
            text = "The call ran, but whether its changes were saved is not known; look before you repeat it"
            return Refusal(SERVER_BUSY, text, data, 503, error.retry_after)
        case ActorUnavailable() | OwnershipLost():
            _warn(error)
            return Refusal(
                SERVER_BUSY, "The session is not available now; nothing was changed", None, 503, error.retry_after
            )
        case Elsewhere():
            return Refusal(SERVER_BUSY, "The session is not available now; nothing was changed", None, 503, 1.0)
        case SnapshotTooNew():
            return Refusal(SERVER_BUSY, "The session cannot be served by this version", None, 503, 5.0)
        case SnapshotError() | StoreError():
            logger.error("%s", error)
            return Refusal(INTERNAL_ERROR, "The session's stored state cannot be read", None, 500)
        case DeadlineExceeded():
            return Refusal(SERVER_BUSY, "The request took too long", {"outcome": "unknown"}, 503, 1.0)
        case LimitExceeded():
            status = 503 if error.unchecked else 200 if error.ran else 429
            return Refusal(SERVER_BUSY, str(error), {"limit": error.limit}, status, error.retry_after)
        case SessionError():
            return Refusal(INTERNAL_ERROR, str(error))
        case _:
            return _unforeseen(error, modern=modern)


_WARN_EVERY: Final = 10.0
_warned: dict[type[Exception], float] = {}


def _warn(error: Exception) -> None:
    """Tell the operator why clients are refused: of each kind of trouble once in 10 seconds, as it comes in floods."""
    now = monotonic()
    if now - _warned.get(type(error), float("-inf")) >= _WARN_EVERY:
        _warned[type(error)] = now
        logger.warning("%s", error)


def _unforeseen(error: BaseException, *, modern: bool) -> Refusal:
    mapped = handler_exception_to_error_data(error)
    if mapped is not None:
        status = ERROR_CODE_HTTP_STATUS.get(mapped.code, 200) if modern else 200
        return Refusal(mapped.code, mapped.message, mapped.data, status)
    logger.error("a request handler raised", exc_info=error)
    if modern or isinstance(error, UnderstudyError):
        return Refusal(INTERNAL_ERROR, "Internal server error")
    # What the SDK's handshake-era dispatcher answers, which servers' authors see there too.
    return Refusal(0, str(error))


def encode(message: Any) -> bytes:
    """`message` as JSON on one line, such as every client can read.

    What a tool may return and JSON cannot carry is replaced: a lone surrogate by U+FFFD (the SDK's client refuses its
    escape), NaN and the infinities by null.

    Raises:
        ValueError: Nested deeper than 250 levels, or a number too long to be written.
    """
    try:
        return pydantic_core.to_json(message, inf_nan_mode="null")
    except (pydantic_core.PydanticSerializationError, UnicodeEncodeError):
        return pydantic_core.to_json(_mended(message, 0), inf_nan_mode="null", fallback=str)


def _mended(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {
            _mended(str(key), depth): _mended(item, depth + 1) for key, item in cast("dict[Any, Any]", value).items()
        }
    if isinstance(value, list | tuple):
        return [_mended(item, depth + 1) for item in cast("list[Any]", value)]
    return value


def result_message(request_id: RequestId | None, result: dict[str, Any], encoded: bytes | None = None) -> bytes:
    """A JSON-RPC response. `encoded`: the result as JSON, where it is known. Raises ValueError as `encode` does."""
    if encoded is not None:
        id = b"%d" % request_id if type(request_id) is int else encode(request_id)
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, encoded)
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def error_message(request_id: RequestId | None, refusal: Refusal) -> bytes:
    """A JSON-RPC error; with `id: null` where the request's is not known."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.data is not None:
        error["data"] = refusal.data
    message = {"jsonrpc": "2.0", "id": None if refusal.anonymous else request_id, "error": error}
    try:
        return encode(message)
    except ValueError:
        # A handler's own error with data that JSON cannot carry: the error matters more.
        error.pop("data", None)
        return encode(message)
