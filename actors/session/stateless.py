"""Modern-era calls that belong to no session: served where they arrive."""

from __future__ import annotations

from typing import Any

from mcp.server.runner import ServerRunner

from .connection import envelope_connection
from .current_tenant import STATELESS
from .dispatch import CallDispatch
from .errors import RequestCancelled
from .hosting import HostedServer
from .messages import Call
from .session import CURRENT

__all__ = ["learn_tools", "serve_stateless"]


async def learn_tools(call: Call, hosted: HostedServer) -> None:
    """Have `hosted` learn what its tools are, with the envelope of one modern-era request.

    Raises:
        RequestCancelled: `call.cancel()` was called.
    """
    assert call.route is not None
    connection = envelope_connection(call.route)
    CURRENT.set(None)
    STATELESS.set(call.tenant)
    runner = ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state)
    try:
        await call.run(hosted.learn_tools(runner, CallDispatch(call, None), meta=(call.params or {}).get("_meta")))
    finally:
        await connection.aclose()


async def serve_stateless(call: Call, hosted: HostedServer) -> dict[str, Any]:
    """Run one modern-era request on the tenant's surface and return its result.

    Raises:
        RequestCancelled: `call.cancel()` was called.
        Whatever the handler raises.
    """
    assert call.route is not None
    connection = envelope_connection(call.route)
    dispatch = CallDispatch(call, None)
    CURRENT.set(None)
    STATELESS.set(call.tenant)
    try:
        if call.cancelled:
            raise RequestCancelled
        runner = ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state)
        return await call.run(runner.on_request(dispatch, call.method, call.params))
    finally:
        dispatch.close()
        await connection.aclose()
