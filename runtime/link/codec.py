"""How each wire version writes frames: small msgpack arrays that begin with a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .call_frame import decode_call, encode_call
from .errors import Unsendable
from .frames import (
    LOOSE,
    MAX_NUMBER,
    MAX_REASON,
    Body,
    Call,
    Cancel,
    Failed,
    Frame,
    GrantRequest,
    GrantResponse,
    NotRunFrame,
    Ping,
    Pong,
    RequestBody,
    Start,
)
from .head import decode_head, encode_head
from .head_book import HeadBook
from .headers import decode_headers, encode_headers, join_headers
from .packer import pack_strictly

__all__ = ["decode_frame", "encode_frame"]

_KINDS: Final[dict[type[Frame], int]] = {
    Call: 1,
    RequestBody: 2,
    GrantRequest: 3,
    Cancel: 4,
    Start: 5,
    Body: 6,
    GrantResponse: 7,
    NotRunFrame: 8,
    Failed: 9,
    Ping: 10,
    Pong: 11,
}


def encode_frame(frame: Frame, version: int, book: HeadBook) -> bytes:
    """`frame` as wire version `version` writes it.

    Raises:
        Unsendable: It holds what msgpack cannot carry.
    """
    kind = type(frame)
    try:
        if kind is Call:
            call: Any = frame
            if version > 2:
                return encode_call(call, book)
            channel, head, part, more = call
            return pack_strictly([1, channel, encode_head(head, version, book), part, more])
        if kind is Start:
            start: Any = frame
            channel, status, headers, part, more = start
            written = join_headers(headers) if version > 2 else encode_headers(headers)
            return pack_strictly([5, channel, status, written, part, more])
        if kind is NotRunFrame:
            _check_refusal(frame)
        elif version == 1 and kind in LOOSE:
            return pack_strictly([_KINDS[kind]])
        return pack_strictly([_KINDS[kind], *frame])
    except Unsendable:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unsendable(f"a {kind.__name__} frame cannot be packed: {error}") from error


def _check_refusal(frame: Any) -> None:
    if len(frame.reason) > MAX_REASON or not all(type(key) is str for key in frame.data):
        raise Unsendable(f"a refusal needs a reason of at most {MAX_REASON} characters and a map of names")


def decode_frame(raw: Any, version: int, book: HeadBook) -> Frame:
    """The inverse of `encode_frame`, after msgpack.

    Raises:
        ValueError: It is no frame of this version.
    """
    if raw.__class__ is not list:
        raise ValueError("a frame is no list")
    fields: list[Any] = raw
    if not fields or type(fields[0]) is not int:
        raise ValueError("a frame has no kind")
    decode = _DECODERS.get(fields[0])
    if decode is None:
        raise ValueError(f"a frame of the unknown kind {fields[0]}")
    return decode(fields, version, book)


def _number(raw: Any) -> int:
    if type(raw) is not int or not 0 < raw < MAX_NUMBER:
        raise ValueError("a number in a frame is out of range")
    return raw


def _piece(part: Any, more: Any) -> tuple[bytes, bool]:
    if type(part) is not bytes or type(more) is not bool:
        raise ValueError("a piece of a body is no bytes and whether others follow")
    return part, more


def _reason(raw: Any) -> str:
    if type(raw) is not str or len(raw) > MAX_REASON:
        raise ValueError("a reason is no short text")
    return raw


def _call(fields: list[Any], version: int, book: HeadBook) -> Call:
    if version > 2:
        return decode_call(fields, book)
    _, channel, head, part, more = fields
    return Call(_number(channel), decode_head(head, version, book), *_piece(part, more))


def _request_body(fields: list[Any], _: int, __: HeadBook) -> RequestBody:
    _, channel, part, more = fields
    return RequestBody(_number(channel), *_piece(part, more))


def _grant_request(fields: list[Any], _: int, __: HeadBook) -> GrantRequest:
    _, channel, size = fields
    return GrantRequest(_number(channel), _number(size))


def _cancel(fields: list[Any], _: int, __: HeadBook) -> Cancel:
    _, channel = fields
    return Cancel(_number(channel))


def _start(fields: list[Any], version: int, book: HeadBook) -> Start:
    _, channel, status, written, part, more = fields
    if type(status) is not int or not 100 <= status <= 999:
        raise ValueError("a status is no number of three digits")
    if type(part) is not bytes or type(more) is not bool:
        raise ValueError("a piece of a body is no bytes and whether others follow")
    headers = book.headers(written) if version > 2 else decode_headers(written)
    return Start(_number(channel), status, headers, part, more)


def _body(fields: list[Any], _: int, __: HeadBook) -> Body:
    _, channel, part, more = fields
    return Body(_number(channel), *_piece(part, more))


def _grant_response(fields: list[Any], _: int, __: HeadBook) -> GrantResponse:
    _, channel, size = fields
    return GrantResponse(_number(channel), _number(size))


def _not_run(fields: list[Any], _: int, __: HeadBook) -> NotRunFrame:
    _, channel, reason, data = fields
    if data.__class__ is not dict or not all(type(key) is str for key in data):
        raise ValueError("what comes with a refusal is no map")
    return NotRunFrame(_number(channel), _reason(reason), data)


def _failed(fields: list[Any], _: int, __: HeadBook) -> Failed:
    _, channel, reason = fields
    return Failed(_number(channel), _reason(reason))


def _ping(fields: list[Any], version: int, _: HeadBook) -> Ping:
    return Ping(_nonce(fields, version))


def _pong(fields: list[Any], version: int, _: HeadBook) -> Pong:
    return Pong(_nonce(fields, version))


def _nonce(fields: list[Any], version: int) -> int:
    if version == 1:
        (_,) = fields
        return 0
    _, nonce = fields
    if type(nonce) is not int or not 0 <= nonce < MAX_NUMBER:
        raise ValueError("a nonce is out of range")
    return nonce


_DECODERS: Final[dict[int, Callable[[list[Any], int, HeadBook], Frame]]] = {
    1: _call,
    2: _request_body,
    3: _grant_request,
    4: _cancel,
    5: _start,
    6: _body,
    7: _grant_response,
    8: _not_run,
    9: _failed,
    10: _ping,
    11: _pong,
}
