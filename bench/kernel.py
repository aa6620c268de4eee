"""`understudy bench kernel`: what a call costs in the SDK's kernel alone, and what understudy adds to it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner, serve_one
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.transport_context import TransportContext

from .asgi import Refused
from .clients import CLIENT_INFO, HANDSHAKE_VERSION, HandshakeClient, PreparedCall, modern_meta
from .measure import Effort, Progress, Side, in_flight, interleave
from .report import Report, Scenario, Series, Target, ratio
from .servers import ARGUMENTS, SESSION_TOOL, TOOL, lowlevel_server, sdk_kernel, ten_tools
from .sides import understudy_app

__all__ = ["bench_kernel"]

KERNEL_TARGET = Target("at most", 1.7)
SESSION_TARGET = Target("at most", 1.15)

_TRANSPORT = TransportContext(kind="bench", can_send_request=False)


async def bench_kernel(effort: Effort, progress: Progress) -> Report:
    """Measure; `effort` says how long."""
    async with AsyncExitStack() as stack:
        server = sdk_kernel(ten_tools())
        lifespan_state = await stack.enter_async_context(server.lifespan(server))
        app = await stack.enter_async_context(understudy_app(ten_tools(sessions=True)))
        plain = await HandshakeClient.open(app)
        bound = await HandshakeClient.open(app)
        add, add_in_session = PreparedCall(TOOL, ARGUMENTS), PreparedCall(SESSION_TOOL, ARGUMENTS)
        modern = PreparedCall(TOOL, ARGUMENTS, meta=modern_meta())
        sides = [
            Side("SDK kernel, MCPServer", in_flight([kernel_call(server, lifespan_state, add)])),
            Side("SDK kernel, low-level Server", in_flight([kernel_call(lowlevel_server(), {}, add)])),
            Side("SDK serve_one (modern)", in_flight([serve_one_call(server, lifespan_state, modern)])),
            Side("understudy, whole request", in_flight([lambda: plain.call(add)])),
            Side("understudy, tool with a Session", in_flight([lambda: bound.call(add_in_session)])),
        ]
        seconds = await interleave(sides, effort, progress)
    series = [
        Series(side.name, "us/call", tuple(each * 1e6 for each in figures))
        for side, figures in zip(sides, seconds, strict=True)
    ]
    kernel, _, _, whole, with_session = series
    comparisons = (
        ratio("understudy / SDK kernel", whole, kernel, KERNEL_TARGET),
        ratio("with a Session / without", with_session, whole, SESSION_TARGET),
    )
    return Report(
        "kernel", (Scenario("one call at a time, JSON in and out", tuple(series), comparisons),), effort.quick
    )


def kernel_call(server: Server[Any], lifespan_state: Any, call: PreparedCall) -> Callable[[], Awaitable[bytes]]:
    """Calls on one live session: a `Connection` built once, then JSON in, `ServerRunner.on_request`, JSON out."""
    runner = ServerRunner(server, Connection.from_envelope(HANDSHAKE_VERSION, CLIENT_INFO, {}), lifespan_state)

    async def run() -> bytes:
        request = json.loads(call.body())
        result = await runner.on_request(BareContext(request["id"]), request["method"], request["params"])
        return _response(request["id"], result)

    return run


def serve_one_call(server: Server[Any], lifespan_state: Any, call: PreparedCall) -> Callable[[], Awaitable[bytes]]:
    """Calls that stand alone: each classified, with a `Connection` of its own, through `serve_one`."""

    async def run() -> bytes:
        request = json.loads(call.body())
        route = classify_inbound_request(request)
        if isinstance(route, InboundLadderRejection):
            raise Refused(f"the SDK refused the bench's modern request: {route.message}")
        connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        context = BareContext(request["id"])
        result = await serve_one(
            server,
            context,
            request["method"],
            request["params"],
            connection=connection,
            lifespan_state=lifespan_state,
        )
        return _response(request["id"], result)

    return run


class BareContext:
    """The least the kernel accepts as a `DispatchContext`: a call that talks to nobody while it runs."""

    __slots__ = ("cancel_requested", "request_id")
    transport = _TRANSPORT
    can_send_request = False
    message_metadata = None

    def __init__(self, request_id: int) -> None:
        self.request_id = request_id
        self.cancel_requested = anyio.Event()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        return

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        return


def _response(request_id: int, result: dict[str, Any]) -> bytes:
    if result.get("isError"):
        raise Refused(f"a measured call failed: {result!r}")
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}, separators=(",", ":")).encode()
