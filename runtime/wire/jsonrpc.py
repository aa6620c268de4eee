"""What a POST body is: a request, a notification, a response, or nothing of the kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pydantic_core
from mcp.shared.dispatcher import as_request_id
from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, RequestId

from ...actors.session.wire import Refusal
from .refusals import Refused

__all__ = ["Answer", "Notification", "Request", "read_message"]


@dataclass(slots=True)
class Request:
    id: RequestId
    method: str
    params: dict[str, Any] | None
    raw: dict[str, Any]


@dataclass(slots=True)
class Notification:
    method: str
    params: dict[str, Any] | None


@dataclass(slots=True)
class Answer:
    """A response to a request of the server's."""

    id: RequestId
    result: dict[str, Any] | None
    error: ErrorData | None


def read_message(body: bytes) -> Request | Notification | Answer:
    """The one JSON-RPC 2.0 message in `body`.

    Raises:
        Refused: Not JSON (deep nesting, lone surrogates and oversized numbers included): -32700. A batch, which
            no revision since 2025-06-18 has, or not JSON-RPC: -32600.
    """
    try:
        raw: Any = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(Refusal(PARSE_ERROR, f"Parse error: {error}", status=400)) from None
    if not isinstance(raw, dict):
        raise _invalid("a batch is not supported: send one message a POST" if isinstance(raw, list) else "no object")
    message = cast("dict[str, Any]", raw)
    if message.get("jsonrpc") != "2.0":
        raise _invalid('"jsonrpc" must be "2.0"')
    method = message.get("method")
    if method is None:
        return _read_answer(message)
    if not isinstance(method, str):
        raise _invalid('"method" must be a string')
    params: Any = message.get("params")
    if params is not None and not isinstance(params, dict):
        raise _invalid('"params" must be an object', as_request_id(message.get("id")))
    if "id" not in message:
        return Notification(method, cast("dict[str, Any] | None", params))
    id = as_request_id(message["id"])
    if id is None:
        raise _invalid('"id" must be a string or an integer')
    return Request(id, method, cast("dict[str, Any] | None", params), message)


def _read_answer(message: dict[str, Any]) -> Answer:
    id = as_request_id(message.get("id"))
    if id is None or ("result" in message) == ("error" in message):
        raise _invalid("neither a request, nor a notification, nor a response with an id")
    if "error" in message:
        try:
            return Answer(id, None, ErrorData.model_validate(message["error"]))
        except pydantic_core.ValidationError:
            raise _invalid('"error" must be an object with a code and a message') from None
    result: Any = message["result"]
    if not isinstance(result, dict):
        raise _invalid('"result" must be an object')
    return Answer(id, cast("dict[str, Any]", result), None)


def _invalid(why: str, id: RequestId | None = None) -> Refused:
    return Refused(Refusal(INVALID_REQUEST, f"Invalid Request: {why}", status=400), id)
