"""`CallHead`: all of a forwarded request but its body, and how versions 1 and 2 write it."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

from ...actors.session.tenant import ANONYMOUS, TenantContext
from ...stores import Address
from .errors import Unsendable
from .head_book import HeadBook
from .headers import decode_headers, encode_headers

__all__ = ["MAX_HOPS", "CallHead", "address_of", "decode_head", "encode_head", "host_and_port"]


class CallHead(NamedTuple):
    """What the edge knows of a request when it forwards it. The owner does not ask for the credential again.

    A tuple, because one is made at each end for each call, and a tuple is made in C.
    """

    method: str
    path: str
    query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    """Not to be changed: calls may share it."""
    client: tuple[str, int] | None = None
    server: tuple[str, int | None] | None = None
    scheme: str = "http"
    http_version: str = "1.1"
    root_path: str = ""
    tenant: TenantContext = ANONYMOUS
    address: Address | None = None
    purpose: str = ""
    """What is asked of the owner, in the words of who forwards."""
    hops: int = 0
    """Forwards that lie behind the call."""
    budget: float | None = None
    """Seconds that the caller still waits; None: no end. A duration, because clocks of nodes differ."""
    trace: str = ""
    """The request id that follows the call across nodes; lost where a node speaks version 1."""
    again: bool = False
    """An earlier try of the same call may have run, and may run still; lost where a node speaks version 1."""

    def scope(self) -> dict[str, Any]:
        """The ASGI scope of the request, as the edge's HTTP server gave it, extensions and state aside."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self.http_version,
            "method": self.method,
            "scheme": self.scheme,
            "path": self.path,
            "raw_path": self.path.encode("utf-8", "surrogateescape"),
            "query_string": self.query,
            "root_path": self.root_path,
            "headers": [*self.headers],
            "client": self.client,
            "server": self.server,
        }


MAX_HOPS: Final = 256

_OPTIONS: Final = ("c", "s", "x", "v", "r", "a", "b")
"""Of version 1, by position after the fields that every call has; version 2 has a map of those that say something, and
`i` and `m` beside them, and skips keys that it does not know."""


def encode_head(head: CallHead, version: int, book: HeadBook) -> object:
    """`head` as what msgpack packs.

    Raises:
        Unsendable: It holds what msgpack does not carry, or what `decode_head` would refuse.
    """
    if not 0 <= head.hops < MAX_HOPS:
        raise Unsendable(f"{head.hops} hops are none, or too many")
    options: dict[str, object] = {}
    if head.client is not None:
        options["c"] = [*head.client]
    if head.server is not None:
        options["s"] = [*head.server]
    if head.scheme != "http":
        options["x"] = head.scheme
    if head.http_version != "1.1":
        options["v"] = head.http_version
    if head.root_path:
        options["r"] = head.root_path
    if head.address is not None:
        options["a"] = [*head.address]
    if head.budget is not None:
        if not isfinite(head.budget):
            raise Unsendable(f"a budget of {head.budget} seconds is no duration; None means no end")
        options["b"] = float(head.budget)
    tenant = book.tenants.pack(head.tenant)
    headers = encode_headers(head.headers)
    if version == 1:
        rest = [options.get(key) for key in _OPTIONS]
        return [head.method, head.path, head.query, headers, tenant, head.purpose, head.hops, *rest]
    if head.trace:
        options["i"] = head.trace
    if head.again:
        options["m"] = True
    return [head.method, head.path, head.query, headers, tenant, head.purpose, head.hops, options]


def decode_head(raw: Any, version: int, book: HeadBook) -> CallHead:
    """The inverse of `encode_head`.

    Raises:
        ValueError: It is no head of this version.
    """
    if raw.__class__ is not list:
        raise ValueError("the head of a call is no list")
    options: dict[str, Any]
    if version == 1:
        method, path, query, headers, tenant, purpose, hops, *rest = raw
        options = dict(zip(_OPTIONS, rest, strict=True))
    else:
        method, path, query, headers, tenant, purpose, hops, options = raw
        if options.__class__ is not dict:
            raise ValueError("the options of a call are no map")
    get = options.get
    scheme, http_version, root_path, trace = get("x") or "http", get("v") or "1.1", get("r") or "", get("i") or ""
    budget, client, server, address, again = get("b"), get("c"), get("s"), get("a"), get("m") or False
    if not (
        type(method)
        is type(path)
        is type(purpose)
        is type(scheme)
        is type(http_version)
        is type(root_path)
        is type(trace)
        is str
        and type(query) is bytes
        and type(again) is bool
    ):
        raise ValueError("a field of a call is of another type")
    if budget is not None and (type(budget) is not float or not isfinite(budget)):
        raise ValueError("the budget of a call is no duration")
    if type(hops) is not int or not 0 <= hops < MAX_HOPS:
        raise ValueError("the hops of a call are no small number")
    return CallHead(
        method,
        path,
        query,
        decode_headers(headers),
        None if client is None else host_and_port(client, int),
        None if server is None else host_and_port(server, int, type(None)),
        scheme,
        http_version,
        root_path,
        book.tenants.unpack(tenant),
        None if address is None else address_of(address),
        purpose,
        hops,
        budget,
        trace,
        again,
    )


def host_and_port(raw: Any, *port_types: type) -> tuple[str, Any]:
    """An end of a connection.

    Raises:
        ValueError: `raw` is no host and port.
    """
    if raw.__class__ is list and len(raw) == 2:
        host, port = raw
        if type(host) is str and type(port) in port_types:
            return host, port
    raise ValueError("an end of the connection of a call is no host and port")


def address_of(raw: Any) -> Address:
    """An actor's address, of any kind and id.

    Raises:
        ValueError: `raw` is no kind and id.
    """
    if raw.__class__ is list and len(raw) == 2:
        kind, id = raw
        if type(kind) is str and type(id) is str:
            return Address(kind, id)
    raise ValueError("the address of a call is no kind and id")
