"""How version 3 writes a call.

    [1, channel, request, part, more, purpose, hops, budget, trace, again?, ...]
    request: msgpack of [method, path, query, headers, client, server, scheme, http version, root path, tenant,
             address, ...]

What the calls of one session on one connection have in common is one piece, which is read once for all of them. Both
lists may grow at their end: what is not known there is skipped. `again` stands there only where it is true.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

from ...actors.packing import unpack
from .errors import Unsendable
from .frames import MAX_NUMBER, Call
from .head import MAX_HOPS, CallHead, address_of, host_and_port
from .head_book import HeadBook
from .headers import join_headers, split_headers
from .packer import pack_strictly
from .tenant_book import TenantBook

__all__ = ["decode_call", "encode_call"]

_REQUEST_FIELDS: Final = 11
_CALL_FIELDS: Final = 9


def encode_call(call: Call, book: HeadBook) -> bytes:
    """`call` as version 3 writes it.

    Raises:
        Unsendable, TypeError, ValueError, OverflowError: It holds what msgpack does not carry, or what `decode_call`
            would refuse.
    """
    channel, head, part, more = call
    method, path, query, headers, client, server, scheme, http, root, tenant, address = head[:_REQUEST_FIELDS]
    purpose, hops, budget, trace, again = head[_REQUEST_FIELDS:]
    if not 0 <= hops < MAX_HOPS:
        raise Unsendable(f"{hops} hops are none, or too many")
    if budget is not None:
        if not isfinite(budget):
            raise Unsendable(f"a budget of {budget} seconds is no duration; None means no end")
        budget = float(budget)
    request = pack_strictly(
        [
            method,
            path,
            query,
            join_headers(headers),
            client and [*client],
            server and [*server],
            scheme,
            http,
            root,
            book.tenants.pack(tenant),
            address and [*address],
        ]
    )
    fields = [1, channel, request, part, more, purpose, hops, budget, trace]
    if again:
        fields.append(True)
    return pack_strictly(fields)


def decode_call(fields: list[Any], book: HeadBook) -> Call:
    """The inverse of `encode_call`, after msgpack.

    Raises:
        ValueError: It is no call of this version.
    """
    again = False
    if len(fields) > _CALL_FIELDS:
        again = fields[_CALL_FIELDS]
        fields = fields[:_CALL_FIELDS]
    _, channel, request, part, more, purpose, hops, budget, trace = fields
    if (
        type(part) is not bytes
        or type(more) is not bool
        or type(purpose) is not str
        or type(trace) is not str
        or type(again) is not bool
        or type(hops) is not int
        or not 0 <= hops < MAX_HOPS
        or type(channel) is not int
        or not 0 < channel < MAX_NUMBER
    ):
        raise ValueError("a field of a call is of another type, or out of range")
    if budget is not None and (type(budget) is not float or not isfinite(budget)):
        raise ValueError("the budget of a call is no duration")
    head = CallHead._make((*book.request(request, _read_request), purpose, hops, budget, trace, again))
    return Call(channel, head, part, more)


def _read_request(written: bytes, tenants: TenantBook) -> tuple[Any, ...]:
    fields: Any = unpack(written)
    if fields.__class__ is not list or len(fields) < _REQUEST_FIELDS:
        raise ValueError("the request of a call is no list of all that it needs")
    method, path, query, headers, client, server, scheme, http, root, tenant, address = fields[:_REQUEST_FIELDS]
    if any(type(text) is not str for text in (method, path, scheme, http, root)):
        raise ValueError("a field of the request of a call is no text")
    if type(query) is not bytes or type(headers) is not bytes:
        raise ValueError("the query or the headers of a call are no bytes")
    return (
        method,
        path,
        query,
        split_headers(headers),
        None if client is None else host_and_port(client, int),
        None if server is None else host_and_port(server, int, type(None)),
        scheme,
        http,
        root,
        tenants.unpack(tenant),
        None if address is None else address_of(address),
    )
